// GELU on a CPU. 1/2 (1 + tanh u) is sigmoid(2u), which keeps its digits where x is far below 0. One exp and one
// division an element: between the memory bound and the arithmetic one.
#include "kernels/gelu/gelu.h"

#include "kernels/cpu_math.h"

namespace nanovlm::kernels {
namespace {

constexpr float kTwoRoot = 1.5957691216f;  // 2 sqrt(2 / pi)
constexpr float kCubic = 0.044715f;

template <class T>
void gelu_range(const T* x, T* y, int64_t begin, int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float v = static_cast<float>(x[i]);
    store(y[i], v * sigmoid(kTwoRoot * v * (1 + kCubic * (v * v))));
  }
}

template <class T>
void gelu_backward_range(const T* x, const T* dy, T* dx, int64_t begin, int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float v = static_cast<float>(x[i]), square = v * v;
    const SigmoidPair s = sigmoid_pair(kTwoRoot * v * (1 + kCubic * square));
    const float slope = s.plus + v * s.plus * s.minus * (kTwoRoot * (1 + 3 * kCubic * square));
    store(dx[i], static_cast<float>(dy[i]) * slope);
  }
}

}  // namespace

template <>
void gelu(ThisBackend, const Gelu& a, Stream) {
  with_float(a.dtype, [&]<class T>(Type<T>) {
    parallel_elements(a.n, [&](int64_t begin, int64_t end) { gelu_range(as<T>(a.x), as<T>(a.y), begin, end); });
  });
}

template <>
void gelu_backward(ThisBackend, const GeluBackward& a, Stream) {
  with_float(a.dtype, [&]<class T>(Type<T>) {
    parallel_elements(a.n, [&](int64_t begin, int64_t end) {
      gelu_backward_range(as<T>(a.x), as<T>(a.dy), as<T>(a.dx), begin, end);
    });
  });
}

}  // namespace nanovlm::kernels
