// What fused kernels are compared with on the cpu: one pass over memory for each step of a formula.
#pragma once
#include "engine/tensor.h"
#include "kernels/parallel.h"

namespace nanovlm::bench {

// to = f(a, b), entry by entry, rounded to their dtype. `to` may be a or b.
template <class F>
void pass(const Tensor& a, const Tensor& b, const Tensor& to, const F& f) {
  with_float(a.dtype(), [&]<class T>(Type<T>) {
    const T *x = static_cast<const T*>(a.data()), *z = static_cast<const T*>(b.data());
    T* y = static_cast<T*>(to.data());
    kernels::parallel_for(a.numel(), 1 << 14, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) y[i] = T(f(static_cast<float>(x[i]), static_cast<float>(z[i])));
    });
  });
}

inline float product(float a, float b) { return a * b; }

}  // namespace nanovlm::bench
