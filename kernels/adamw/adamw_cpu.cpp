// AdamW on a CPU: one pass, bound by memory.
#include "kernels/adamw/adamw.h"

#include "kernels/cpu_math.h"
#include "kernels/cpu_sum.h"

namespace nanovlm::kernels {
namespace {

template <bool kWithCopy>
void adamw_range(const AdamW& a, int64_t begin, int64_t end) {
  float *p = a.p, *m = a.m, *v = a.v;
  const float* g = a.g;
  bf16* copy = a.copy;
  const AdamWCoefficients c = *a.coefficients;
  const float scale = a.scale ? *a.scale : 1.0f;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float slope = g[i] * scale;
    m[i] += (slope - m[i]) * c.toward_gradient;
    v[i] = c.beta2 * v[i] + (c.one_minus_beta2 * slope) * slope;
    p[i] = p[i] * c.decay - c.step * m[i] / (std::sqrt(v[i]) / c.root_correction + c.eps);
    if constexpr (kWithCopy) store(copy[i], p[i]);
  }
}

}  // namespace

template <>
void adamw(ThisBackend, const AdamW& a, Stream) {
  if (a.only_if_finite && !std::isfinite(*a.only_if_finite)) return;
  parallel_elements(a.n, [&](int64_t begin, int64_t end) {
    a.copy ? adamw_range<true>(a, begin, end) : adamw_range<false>(a, begin, end);
  });
}

template <>
void sum_of_squares(ThisBackend, const SumOfSquares& a, Stream) {
  *a.sum = (a.accumulate ? *a.sum : 0) + sum_in_chunks<true>(a.x, a.n);
}

template <>
void clip_scale(ThisBackend, const ClipScale& a, Stream) {
  const double norm = std::sqrt(*a.sum), factor = a.max_norm / (norm + 1e-6);
  *a.norm = static_cast<float>(norm);
  *a.scale = static_cast<float>(factor > 1 ? 1 : factor);
}

}  // namespace nanovlm::kernels
