// SwiGLU's gate on a CPU: one exp and one division an element, bound by memory or close to it.
#include "kernels/swiglu/swiglu.h"

#include "kernels/cpu_math.h"

namespace nanovlm::kernels {
namespace {

template <class T>
void swiglu_range(const T* gate, const T* up, T* y, int64_t begin, int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float g = static_cast<float>(gate[i]);
    store(y[i], g * sigmoid(g) * static_cast<float>(up[i]));
  }
}

template <class T, bool kWithOutput>
void swiglu_backward_range(const T* gate, const T* up, const T* dy, T* dgate, T* dup, T* y, int64_t begin,
                           int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float g = static_cast<float>(gate[i]), u = static_cast<float>(up[i]), d = static_cast<float>(dy[i]);
    const SigmoidPair s = sigmoid_pair(g);
    const float silu = g * s.plus;
    store(dgate[i], d * u * (s.plus * (1 + g * s.minus)));
    store(dup[i], d * silu);
    if constexpr (kWithOutput) store(y[i], silu * u);
  }
}

template <class T, bool kWithOutput>
void backward(const SwigluBackward& a) {
  parallel_elements(a.n, [&](int64_t begin, int64_t end) {
    swiglu_backward_range<T, kWithOutput>(as<T>(a.gate), as<T>(a.up), as<T>(a.dy), as<T>(a.dgate), as<T>(a.dup),
                                          as<T>(a.y), begin, end);
  });
}

}  // namespace

template <>
void swiglu(ThisBackend, const Swiglu& a, Stream) {
  with_float(a.dtype, [&]<class T>(Type<T>) {
    parallel_elements(
        a.n, [&](int64_t begin, int64_t end) { swiglu_range(as<T>(a.gate), as<T>(a.up), as<T>(a.y), begin, end); });
  });
}

template <>
void swiglu_backward(ThisBackend, const SwigluBackward& a, Stream) {
  with_float(a.dtype, [&]<class T>(Type<T>) { a.y ? backward<T, true>(a) : backward<T, false>(a); });
}

}  // namespace nanovlm::kernels
