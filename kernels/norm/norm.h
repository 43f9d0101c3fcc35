// RMSNorm and LayerNorm over the last dimension, with the residual add that precedes them in a transformer.
//
//   x'  = x + delta                                  (x' = x where delta is null)
//   RMSNorm    y = x' * r * w,            r = 1 / sqrt(mean(x'^2) + eps)
//   LayerNorm  y = (x' - m) * r * w + b,  m = mean(x'),  r = 1 / sqrt(mean((x' - m)^2) + eps)
//
// The residual stream (x, x', its gradients) and the parameters are fp32; delta, y and dy have `dtype`.
// All arithmetic is fp32; y is rounded once, on store.
#pragma once
#include "kernels/types.h"

namespace nanovlm::kernels {

struct RmsNorm {
  const float* x;     // [R, C]
  const void* delta;  // [R, C] dtype, or null
  const float* w;     // [C]
  float* sum;         // [R, C] x', written where delta is given (may be x itself); or null
  void* y;            // [R, C] dtype
  float* r;           // [R]
  int64_t R, C;
  float eps;
  DType dtype;
};

// With g = dy * w:  dx' = dsum + r * (g - x' * r^2 * mean(g * x')),  dw += sum over rows of dy * x' * r
struct RmsNormBackward {
  const void* dy;     // [R, C] dtype
  const float* x;     // [R, C] x', or x where delta is given
  const void* delta;  // [R, C] dtype, or null
  const float* w;     // [C]
  const float* r;     // [R]
  const float* dsum;  // [R, C] gradient that reaches x' from elsewhere, or null
  float* dx;          // [R, C] gradient of x' (may be dsum itself)
  void* ddelta;       // [R, C] dtype: dx rounded, or null
  float* dw;          // [C], added to; or null
  int64_t R, C;
  DType dtype;
};

struct LayerNorm {
  const float* x;      // [R, C]
  const void* delta;   // [R, C] dtype, or null
  const float *w, *b;  // [C]
  float* sum;          // [R, C] x', written where delta is given (may be x itself); or null
  void* y;             // [R, C] dtype
  float *m, *r;        // [R]
  int64_t R, C;
  float eps;
  DType dtype;
};

// With g = dy * w and n = (x' - m) * r:  dx' = dsum + r * (g - mean(g) - n * mean(g * n)),
// dw += sum over rows of dy * n,  db += sum over rows of dy
struct LayerNormBackward {
  const void* dy;      // [R, C] dtype
  const float* x;      // [R, C] x', or x where delta is given
  const void* delta;   // [R, C] dtype, or null
  const float* w;      // [C]
  const float *m, *r;  // [R]
  const float* dsum;   // [R, C] gradient that reaches x' from elsewhere, or null
  float* dx;           // [R, C] gradient of x' (may be dsum itself)
  void* ddelta;        // [R, C] dtype: dx rounded, or null
  float *dw, *db;      // [C], added to; both null or neither
  int64_t R, C;
  DType dtype;
};

template <class Backend>
void rms_norm(Backend, const RmsNorm&, Stream);
template <class Backend>
void rms_norm_backward(Backend, const RmsNormBackward&, Stream);
template <class Backend>
void layer_norm(Backend, const LayerNorm&, Stream);
template <class Backend>
void layer_norm_backward(Backend, const LayerNormBackward&, Stream);

}  // namespace nanovlm::kernels
