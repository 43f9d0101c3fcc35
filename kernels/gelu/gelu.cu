// GELU on a GPU: a thread a vector of 16 bytes, fp32 arithmetic. 1/2 (1 + tanh u) is sigmoid(2u), which keeps its
// digits where x is far below 0. Bound by memory.
#include "kernels/gelu/gelu.h"

#include "kernels/elements.cuh"
#include "kernels/sigmoid.cuh"

namespace nanovlm::kernels {
namespace {

constexpr float kTwoRoot = 1.5957691216f;  // 2 sqrt(2 / pi)
constexpr float kCubic = 0.044715f;

template <class T>
__global__ void gelu_kernel(const T* x, T* y, int64_t n, bool vectors) {
  for_grid_elements<kVectorWidth<T>>(n, vectors, [&]<int W>(Width<W>, int64_t i) {
    Vec<float, W> values = load_floats<W>(x + i);
    for (int j = 0; j < W; ++j) {
      const float v = values[j];
      values[j] = v * sigmoid_pair(kTwoRoot * v * (1 + kCubic * (v * v))).plus;
    }
    store_floats<W>(y + i, values);
  });
}

template <class T>
__global__ void gelu_backward_kernel(const T* x, const T* dy, T* dx, int64_t n, bool vectors) {
  for_grid_elements<kVectorWidth<T>>(n, vectors, [&]<int W>(Width<W>, int64_t i) {
    const Vec<float, W> values = load_floats<W>(x + i);
    Vec<float, W> slopes = load_floats<W>(dy + i);
    for (int j = 0; j < W; ++j) {
      const float v = values[j], square = v * v;
      const SigmoidPair s = sigmoid_pair(kTwoRoot * v * (1 + kCubic * square));
      slopes[j] *= s.plus + v * s.plus * s.minus * (kTwoRoot * (1 + 3 * kCubic * square));
    }
    store_floats<W>(dx + i, slopes);
  });
}

}  // namespace

template <>
void gelu(ThisBackend, const Gelu& a, Stream stream) {
  if (a.n == 0) return;
  with_float(a.dtype, [&]<class T>(Type<T>) {
    launch("gelu", gelu_kernel<T>, elements_shape<kVectorWidth<T>>(a.n, stream), a.x, a.y, a.n, aligned(a.x, a.y));
  });
}

template <>
void gelu_backward(ThisBackend, const GeluBackward& a, Stream stream) {
  if (a.n == 0) return;
  with_float(a.dtype, [&]<class T>(Type<T>) {
    launch("gelu_backward", gelu_backward_kernel<T>, elements_shape<kVectorWidth<T>>(a.n, stream), a.x, a.dy, a.dx, a.n,
           aligned(a.x, a.dy, a.dx));
  });
}

}  // namespace nanovlm::kernels
