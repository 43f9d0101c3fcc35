// A few vectors times one row, the step of products that memory bounds: matmul with few rows, and the scores of
// attention_decode. Internal linkage, as in kernels/cpu_math.h.
#pragma once
#include "kernels/cpu_vectors.h"

namespace nanovlm::kernels {
namespace {

constexpr int kFewRows = 4;  // vectors whose sums fit into registers

// sum[m] = x[m, :] . b for M rows of x, x_step apart. The order of the additions depends on K and M alone.
template <int M, class T>
void dot_products(const float* x, int64_t x_step, const T* b, int64_t K, float* sum) {
  constexpr int kUnroll = M == 1 ? 4 : 2;  // independent sums enough to hide the latency of an addition
  Lanes part[M][kUnroll] = {};
  int64_t k = 0;
  for (; k + kUnroll * kLanes <= K; k += kUnroll * kLanes)
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; ++u) {
      const Lanes right = load(b + k + u * kLanes);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) part[m][u] += load(x + m * x_step + k + u * kLanes) * right;
    }
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int u = 1; u < kUnroll; ++u) part[m][0] += part[m][u];
    sum[m] = total_of(part[m][0]);
  }
  for (; k < K; ++k)
    for (int m = 0; m < M; ++m) sum[m] += x[m * x_step + k] * static_cast<float>(b[k]);
}

// The same for a number of rows known at run time, 1 to kFewRows.
template <int M = kFewRows, class T>
void dot_products(int64_t rows, const float* x, int64_t x_step, const T* b, int64_t K, float* sum) {
  if constexpr (M > 1)
    if (rows < M) return dot_products<M - 1>(rows, x, x_step, b, K, sum);
  dot_products<M>(x, x_step, b, K, sum);
}

}  // namespace
}  // namespace nanovlm::kernels
