// SwiGLU's gate on a CPU: one exp and one division an element, bound by memory or close to it.
#include "kernels/swiglu/swiglu.h"

#include "kernels/cpu_math.h"

namespace nanovlm::kernels {
namespace {

// Calls f(first element of gate and up, first element of y, number) for runs without a gap.
template <class F>
void for_runs(int64_t R, int64_t C, int64_t stride, const F& f) {
  if (stride == C) {
    parallel_elements(R * C, [&](int64_t begin, int64_t end) { f(begin, begin, end - begin); });
    return;
  }
  parallel_rows(R, C, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) f(r * stride, r * C, C);
  });
}

template <class T>
void swiglu_run(const T* gate, const T* up, T* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = static_cast<float>(gate[i]);
    store(y[i], g * sigmoid(g) * static_cast<float>(up[i]));
  }
}

template <class T, bool kWithOutput>
void swiglu_backward_run(const T* gate, const T* up, const T* dy, T* dgate, T* dup, T* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
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
  for_runs(a.R, a.C, a.stride, [&](int64_t at, int64_t dense, int64_t n) {
    swiglu_backward_run<T, kWithOutput>(as<T>(a.gate) + at, as<T>(a.up) + at, as<T>(a.dy) + dense, as<T>(a.dgate) + at,
                                        as<T>(a.dup) + at, kWithOutput ? as<T>(a.y) + dense : nullptr, n);
  });
}

}  // namespace

template <>
void swiglu(ThisBackend, const Swiglu& a, Stream) {
  with_float(a.dtype, [&]<class T>(Type<T>) {
    for_runs(a.R, a.C, a.stride, [&](int64_t at, int64_t dense, int64_t n) {
      swiglu_run(as<T>(a.gate) + at, as<T>(a.up) + at, as<T>(a.y) + dense, n);
    });
  });
}

template <>
void swiglu_backward(ThisBackend, const SwigluBackward& a, Stream) {
  with_float(a.dtype, [&]<class T>(Type<T>) { a.y ? backward<T, true>(a) : backward<T, false>(a); });
}

}  // namespace nanovlm::kernels
