// AdamW with decoupled weight decay, in torch.optim.AdamW's order of operations, and the norm that clipping needs.
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

struct AdamW {
  float *p, *m, *v;                       // [n]
  const float* g;                         // [n]
  bf16* copy;                             // [n] p rounded, or null
  const float* scale;                     // one number on the device (the clipping factor), or null for 1
  const float* only_if_finite;            // one number on the device: nothing happens where it is not finite; or null
  const AdamWCoefficients* coefficients;  // on the device
  int64_t n;
};

// *sum = (accumulate ? *sum : 0) + sum of x^2, added in a fixed order that does not depend on the number of threads.
// fp64 accumulation: one float would lose digits over hundreds of millions of terms.
struct SumOfSquares {
  const float* x;  // [n]
  double* sum;
  int64_t n;
  bool accumulate;
};

// *scale = min(1, max_norm / (norm + 1e-6)),  *norm = sqrt(*sum), as torch.nn.utils.clip_grad_norm_.
struct ClipScale {
  const double* sum;
  float *norm, *scale;
  double max_norm;
};

template <class Backend>
void adamw(Backend, const AdamW&, Stream);
template <class Backend>
void sum_of_squares(Backend, const SumOfSquares&, Stream);
template <class Backend>
void clip_scale(Backend, const ClipScale&, Stream);

}  // namespace nanovlm::kernels
