// AdamW on a GPU: one pass, a thread four parameters, bound by memory: 28 bytes a parameter, 30 with the copy.
// The norm's sum of squares is in kernels/sum.cuh.
#include "kernels/adamw/adamw.h"

#include "kernels/elements.cuh"
#include "kernels/sum.cuh"

namespace nanovlm::kernels {
namespace {

__global__ void adamw_kernel(const AdamW a, bool vectors) {
  if (a.only_if_finite && !(fabsf(*a.only_if_finite) < INFINITY)) return;
  const float scale = a.scale ? *a.scale : 1.0f;
  const Vec<float, 4> first = load_floats<4>(&a.coefficients->decay), rest = load_floats<4>(&a.coefficients->step);
  const float decay = first[0], toward_gradient = first[1], beta2 = first[2], one_minus_beta2 = first[3];
  const float step = rest[0], root_correction = rest[1], eps = rest[2];
  for_grid_elements<4>(a.n, vectors, [&]<int W>(Width<W>, int64_t i) {
    Vec<float, W> p = load_floats<W>(a.p + i), m = load_floats<W>(a.m + i), v = load_floats<W>(a.v + i);
    const Vec<float, W> g = load_floats<W>(a.g + i);
    for (int j = 0; j < W; ++j) {
      const float slope = g[j] * scale;
      m[j] += (slope - m[j]) * toward_gradient;
      v[j] = beta2 * v[j] + (one_minus_beta2 * slope) * slope;
      p[j] = p[j] * decay - step * m[j] / (sqrtf(v[j]) / root_correction + eps);
    }
    store_floats<W>(a.p + i, p);
    store_floats<W>(a.m + i, m);
    store_floats<W>(a.v + i, v);
    if (a.copy) store_floats<W>(a.copy + i, p);
  });
}

__global__ void clip_scale_kernel(const ClipScale a) {
  const double norm = sqrt(*a.sum), factor = a.max_norm / (norm + 1e-6);
  *a.norm = static_cast<float>(norm);
  *a.scale = static_cast<float>(factor > 1 ? 1 : factor);
}

}  // namespace

template <>
void adamw(ThisBackend, const AdamW& a, Stream stream) {
  if (a.n == 0) return;
  launch("adamw", adamw_kernel, elements_shape<4>(a.n, stream), a, aligned(a.p, a.m, a.v, a.g, a.copy));
}

template <>
void sum_of_squares(ThisBackend, const SumOfSquares& a, Stream stream) {
  sum_in_chunks<true>("sum_of_squares", a.x, a.sum, a.n, a.accumulate, stream);
}

template <>
void clip_scale(ThisBackend, const ClipScale& a, Stream stream) {
  launch("clip_scale", clip_scale_kernel, {1, 1, 0, stream}, a);
}

}  // namespace nanovlm::kernels
