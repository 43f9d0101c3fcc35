// SwiGLU's gate on a GPU: a thread a vector of 16 bytes, fp32 arithmetic. Bound by memory.
#include "kernels/swiglu/swiglu.h"

#include "kernels/elements.cuh"
#include "kernels/sigmoid.cuh"

namespace nanovlm::kernels {
namespace {

template <class T>
__global__ void swiglu_kernel(const T* gate, const T* up, T* y, int64_t n, bool vectors) {
  for_grid_elements<kVectorWidth<T>>(n, vectors, [&]<int W>(Width<W>, int64_t i) {
    const Vec<float, W> g = load_floats<W>(gate + i);
    Vec<float, W> value = load_floats<W>(up + i);
    for (int j = 0; j < W; ++j) value[j] *= g[j] * sigmoid_pair(g[j]).plus;
    store_floats<W>(y + i, value);
  });
}

template <class T>
__global__ void swiglu_backward_kernel(const T* gate, const T* up, const T* dy, T* dgate, T* dup, T* y, int64_t n,
                                       bool vectors) {
  for_grid_elements<kVectorWidth<T>>(n, vectors, [&]<int W>(Width<W>, int64_t i) {
    Vec<float, W> g = load_floats<W>(gate + i), u = load_floats<W>(up + i), d = load_floats<W>(dy + i);
    for (int j = 0; j < W; ++j) {
      const SigmoidPair s = sigmoid_pair(g[j]);
      const float silu = g[j] * s.plus, slope = d[j];
      d[j] *= u[j] * (s.plus * (1 + g[j] * s.minus));  // dgate
      g[j] = slope * silu;                             // dup
      u[j] *= silu;                                    // y
    }
    store_floats<W>(dgate + i, d);
    store_floats<W>(dup + i, g);
    if (y) store_floats<W>(y + i, u);
  });
}

}  // namespace

template <>
void swiglu(ThisBackend, const Swiglu& a, Stream stream) {
  if (a.n == 0) return;
  with_float(a.dtype, [&]<class T>(Type<T>) {
    launch("swiglu", swiglu_kernel<T>, elements_shape<kVectorWidth<T>>(a.n, stream), a.gate, a.up, a.y, a.n,
           aligned(a.gate, a.up, a.y));
  });
}

template <>
void swiglu_backward(ThisBackend, const SwigluBackward& a, Stream stream) {
  if (a.n == 0) return;
  with_float(a.dtype, [&]<class T>(Type<T>) {
    launch("swiglu_backward", swiglu_backward_kernel<T>, elements_shape<kVectorWidth<T>>(a.n, stream), a.gate, a.up,
           a.dy, a.dgate, a.dup, a.y, a.n, aligned(a.gate, a.up, a.dy, a.dgate, a.dup, a.y));
  });
}

}  // namespace nanovlm::kernels
