// Softmax over stored scores on a CPU: one exp an entry, bound by it.
#include "kernels/softmax/softmax.h"

#include "kernels/cpu_math.h"

namespace nanovlm::kernels {
namespace {

template <class In, class Out>
void softmax_row(const In* s, Out* p, int64_t seen, int64_t T, float scale) {
  float max = -INFINITY, sum = 0;
#pragma omp simd reduction(max : max)
  for (int64_t t = 0; t < seen; ++t) max = std::fmax(max, static_cast<float>(s[t]));
#pragma omp simd reduction(+ : sum)
  for (int64_t t = 0; t < seen; ++t) sum += exp((static_cast<float>(s[t]) - max) * scale);
  const float factor = 1 / sum;
#pragma omp simd
  for (int64_t t = 0; t < seen; ++t) store(p[t], exp((static_cast<float>(s[t]) - max) * scale) * factor);
  for (int64_t t = seen; t < T; ++t) store(p[t], 0);
}

template <class T>
void softmax_backward_row(const T* p, const T* dp, T* ds, int64_t n, float scale) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<float>(p[i]) * static_cast<float>(dp[i]);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) store(ds[i], scale * static_cast<float>(p[i]) * (static_cast<float>(dp[i]) - sum));
}

}  // namespace

template <>
void softmax(ThisBackend, const Softmax& a, Stream) {
  with_float(a.in, [&]<class In>(Type<In>) {
    with_float(a.out, [&]<class Out>(Type<Out>) {
      parallel_rows(a.R, a.T, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r)
          softmax_row(as<In>(a.s) + r * a.T, as<Out>(a.p) + r * a.T, a.causal ? r % a.T + 1 : a.T, a.T, a.scale);
      });
    });
  });
}

template <>
void softmax_backward(ThisBackend, const SoftmaxBackward& a, Stream) {
  with_float(a.dtype, [&]<class T>(Type<T>) {
    parallel_rows(a.R, a.T, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        softmax_backward_row(as<T>(a.p) + r * a.T, as<T>(a.dp) + r * a.T, as<T>(a.ds) + r * a.T, a.T, a.scale);
    });
  });
}

}  // namespace nanovlm::kernels
