// AdamW with decoupled weight decay, in torch.optim.AdamW's order of operations, and the norm that clipping needs, both
// over many tensors at once.
//
//   g' = g * scale
//   p  = p (1 - lr * weight_decay)
//   m  = m + (g' - m)(1 - beta1)
//   v  = beta2 v + (1 - beta2) g'^2
//   p  = p - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
#pragma once
#include "kernels/types.h"

namespace nanovlm::kernels {

// What the settings come to at one step, combined in fp64 and rounded once, as PyTorch does; the arithmetic on the
// elements is fp32. It lies on the device, so that a step's launches are the same whatever its rate and number.
struct alignas(32) AdamWCoefficients {
  float decay, toward_gradient, beta2, one_minus_beta2, step, root_correction, eps, unused;
};

struct AdamWTensor {
  float *p, *m, *v;                       // [n]
  const float* g;                         // [n]
  bf16* copy;                             // [n] p rounded, or null
  const AdamWCoefficients* coefficients;  // on the device
  int64_t n;                              // 0 or more
};

struct AdamW {
  const AdamWTensor* tensors;   // [count] in the host's memory, free again on return
  int64_t count;                // 0 or more
  const float* scale;           // one number on the device (the clipping factor), or null for 1
  const float* only_if_finite;  // one number on the device: nothing happens where it is not finite; or null
};

struct Gradient {
  const float* x;  // [n]
  int64_t n;       // 0 or more
};

// *norm = the root of the sum of all gradients' squares,  *scale = min(1, max_norm / (*norm + 1e-6)), as
// torch.nn.utils.clip_grad_norm_. fp64 sums of chunks, in an order that does not depend on the number of threads: one
// float would lose digits over hundreds of millions of terms.
struct ClipScale {
  const Gradient* gradients;  // [count] in the host's memory, free again on return
  int64_t count;              // 0 or more
  float *norm, *scale;
  double max_norm;
};

template <class Backend>
void adamw(Backend, const AdamW&, Stream);
template <class Backend>
void clip_scale(Backend, const ClipScale&, Stream);

}  // namespace nanovlm::kernels
