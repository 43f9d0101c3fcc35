// AdamW and the gradients' norm on a CPU: one pass each, bound by memory. Threads share the chunks of all tensors.
#include "kernels/adamw/adamw.h"

#include "kernels/cpu_math.h"
#include "kernels/cpu_sum.h"

namespace nanovlm::kernels {
namespace {

template <class Tensor>
int64_t chunks_of(const Tensor* tensors, int64_t count, int64_t chunk) {
  int64_t chunks = 0;
  for (int64_t i = 0; i < count; ++i) chunks += ceil_div(tensors[i].n, chunk);
  return chunks;
}

// Chunks are counted through all tensors. Calls f(tensor, first element, last + 1) for each of [begin, end), in order.
template <class Tensor, class F>
void for_chunks(const Tensor* tensors, int64_t chunk, int64_t begin, int64_t end, const F& f) {
  for (int64_t before = 0; before < end; ++tensors) {
    const int64_t n = tensors->n, chunks = ceil_div(n, chunk), rest = end - before;
    for (int64_t i = begin > before ? begin - before : 0; i < chunks && i < rest; ++i)
      f(*tensors, i * chunk, (i + 1) * chunk < n ? (i + 1) * chunk : n);
    before += chunks;
  }
}

template <bool kWithCopy>
void adamw_range(const AdamWTensor& a, float scale, int64_t begin, int64_t end) {
  float *p = a.p, *m = a.m, *v = a.v;
  const float* g = a.g;
  bf16* copy = a.copy;
  const AdamWCoefficients c = *a.coefficients;
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
  constexpr int64_t kChunk = 4096;
  if (a.only_if_finite && !std::isfinite(*a.only_if_finite)) return;
  const float scale = a.scale ? *a.scale : 1.0f;
  parallel_for(chunks_of(a.tensors, a.count, kChunk), kGrain / kChunk, [&](int64_t first, int64_t last) {
    for_chunks(a.tensors, kChunk, first, last, [&](const AdamWTensor& tensor, int64_t begin, int64_t end) {
      tensor.copy ? adamw_range<true>(tensor, scale, begin, end) : adamw_range<false>(tensor, scale, begin, end);
    });
  });
}

template <>
void clip_scale(ThisBackend, const ClipScale& a, Stream) {
  const int64_t chunks = chunks_of(a.gradients, a.count, kSumChunk);
  const double sum = sum_of_chunks(chunks, [&](int64_t first, int64_t last, double* sums) {
    for_chunks(a.gradients, kSumChunk, first, last, [&](const Gradient& gradient, int64_t begin, int64_t end) {
      *sums++ = sum_chunk<true>(gradient.x + begin, end - begin);
    });
  });
  const double norm = std::sqrt(sum), factor = a.max_norm / (norm + 1e-6);
  *a.norm = static_cast<float>(norm);
  *a.scale = static_cast<float>(factor > 1 ? 1 : factor);
}

}  // namespace nanovlm::kernels
