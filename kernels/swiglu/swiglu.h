// SwiGLU's gate:  y = silu(gate) * up,  silu(g) = g * s(g),  s(g) = 1 / (1 + exp(-g)).  Arithmetic is fp32.
//   dgate = dy * up * s (1 + g (1 - s)),   dup = dy * silu(gate)
#pragma once
#include "kernels/types.h"

namespace nanovlm::kernels {

struct Swiglu {
  const void *gate, *up;  // [n] dtype
  void* y;                // [n] dtype
  int64_t n;
  DType dtype;
};

// y, if given, is computed again: the down projection's weight gradient needs it, and storing it would cost memory.
struct SwigluBackward {
  const void *gate, *up, *dy;  // [n] dtype
  void *dgate, *dup;           // [n] dtype (dgate may be dy itself)
  void* y;                     // [n] dtype, or null
  int64_t n;
  DType dtype;
};

template <class Backend>
void swiglu(Backend, const Swiglu&, Stream);
template <class Backend>
void swiglu_backward(Backend, const SwigluBackward&, Stream);

}  // namespace nanovlm::kernels
