// GELU, tanh approximation:  y = x/2 (1 + tanh(u)),  u = sqrt(2/pi) (x + 0.044715 x^3).  Arithmetic is fp32.
//   dx = dy (1/2 (1 + tanh u) + x/2 (1 - tanh^2 u) sqrt(2/pi) (1 + 3 * 0.044715 x^2))
#pragma once
#include "kernels/types.h"

namespace nanovlm::kernels {

struct Gelu {
  const void* x;  // [n] dtype
  void* y;        // [n] dtype (may be x itself)
  int64_t n;
  DType dtype;
};

struct GeluBackward {
  const void *x, *dy;  // [n] dtype
  void* dx;            // [n] dtype (may be dy itself)
  int64_t n;
  DType dtype;
};

template <class Backend>
void gelu(Backend, const Gelu&, Stream);
template <class Backend>
void gelu_backward(Backend, const GeluBackward&, Stream);

}  // namespace nanovlm::kernels
