// SwiGLU's gate:  y = silu(gate) * up,  silu(g) = g * s(g),  s(g) = 1 / (1 + exp(-g)).  Arithmetic is fp32.
//   dgate = dy * up * s (1 + g (1 - s)),   dup = dy * silu(gate)
//
// gate and up may lie side by side in one matrix, as one product of both projections leaves them.
#pragma once
#include "kernels/types.h"

namespace nanovlm::kernels {

struct Swiglu {
  const void *gate, *up;  // [R, C] dtype, rows `stride` elements apart
  void* y;                // [R, C] dtype
  int64_t R, C, stride;
  DType dtype;
};

// y, if given, is computed again: the down projection's weight gradient needs it, and storing it would cost memory.
struct SwigluBackward {
  const void *gate, *up;  // [R, C] dtype, rows `stride` apart
  const void* dy;         // [R, C] dtype
  void *dgate, *dup;      // as gate and up; where rows have no gaps dgate may be dy itself
  void* y;                // [R, C] dtype, or null
  int64_t R, C, stride;
  DType dtype;
};

template <class Backend>
void swiglu(Backend, const Swiglu&, Stream);
template <class Backend>
void swiglu_backward(Backend, const SwigluBackward&, Stream);

}  // namespace nanovlm::kernels
