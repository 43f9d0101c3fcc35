// A few vectors times one row, the step of products that memory bounds: matmul with few rows, and the scores of
// attention_decode. Internal linkage, as in kernels/cpu_math.h.
#pragma once
#include "kernels/cpu_vectors.h"

namespace nanovlm::kernels {
namespace {

constexpr int kFewRows = 4;  // vectors whose sums fit into registers

// The line of b that will be needed soon. It may lie behind b's end: nothing is read yet.
template <class T>
void prefetch(const T* b) {
  constexpr int64_t kAhead = 1024;  // bytes
  __builtin_prefetch(reinterpret_cast<const char*>(b) + kAhead);
}

// sum[m] = x[m, :] . b for M rows of x, x_step apart. The order of the additions depends on K and M alone.
template <int M, class T>
void dot_products(const float* x, int64_t x_step, const T* b, int64_t K, float* sum) {
  constexpr int kUnroll = M == 1 ? 4 : 2;  // independent sums enough to hide the latency of an addition
  Lanes part[M][kUnroll] = {};
  int64_t k = 0;
  for (; k + kUnroll * kLanes <= K; k += kUnroll * kLanes)
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; ++u) {
      if (u * kLanes * sizeof(T) % 64 == 0) prefetch(b + k + u * kLanes);
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

// For bf16 on both sides some processors have an instruction: no conversions, and half the reads of x.
#if defined(__AVX512F__)
inline bool has_bf16_products() {
  static const bool has = __builtin_cpu_supports("avx512bf16");
  return has;
}

// Products are exact and added in fp32, by twos; what is too small for a normal float counts as zero.
template <int M>
[[gnu::target("avx512bf16")]] void dot_products(const bf16* x, int64_t x_step, const bf16* b, int64_t K, float* sum) {
  constexpr int kUnroll = M == 1 ? 6 : 3, kValues = 32;
  __m512 part[M][kUnroll] = {};
  int64_t k = 0;
  for (; k + kUnroll * kValues <= K; k += kUnroll * kValues)
#pragma GCC unroll 6
    for (int u = 0; u < kUnroll; ++u) {
      prefetch(b + k + u * kValues);
      const __m512i right = _mm512_loadu_si512(b + k + u * kValues);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m)
        part[m][u] = _mm512_dpbf16_ps(part[m][u], (__m512bh)_mm512_loadu_si512(x + m * x_step + k + u * kValues),
                                      (__m512bh)right);
    }
  for (; k < K; k += kValues) {
    const __mmask32 there = k + kValues <= K ? ~0u : (1u << (K - k)) - 1;
    const __m512i right = _mm512_maskz_loadu_epi16(there, b + k);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m)
      part[m][0] =
          _mm512_dpbf16_ps(part[m][0], (__m512bh)_mm512_maskz_loadu_epi16(there, x + m * x_step + k), (__m512bh)right);
  }
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 6
    for (int u = 1; u < kUnroll; ++u) part[m][0] = part[m][0] + part[m][u];
    sum[m] = total_of(part[m][0]);
  }
}
#endif

// The same for a number of rows known at run time, 1 to kFewRows.
template <int M = kFewRows, class X, class T>
void dot_products(int64_t rows, const X* x, int64_t x_step, const T* b, int64_t K, float* sum) {
  if constexpr (M > 1)
    if (rows < M) return dot_products<M - 1>(rows, x, x_step, b, K, sum);
  dot_products<M>(x, x_step, b, K, sum);
}

}  // namespace
}  // namespace nanovlm::kernels
