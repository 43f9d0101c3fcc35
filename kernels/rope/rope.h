// Rotary position embedding by itself, for the keys and queries that go with a KV cache (attention applies its own).
//
//   y[d] = x[d] c[d] - x[d + D/2] s[d],   y[d + D/2] = x[d + D/2] c[d] + x[d] s[d]
//
// with c = cos[position], s = sin[position]. The gradient is the same rotation by the negative angle (inverse = true).
#pragma once
#include "kernels/types.h"

namespace nanovlm::kernels {

struct Rope {
  const void* x;             // [R, H, D] dtype
  void* y;                   // [R, H, D] dtype (may be x itself)
  const float *cos, *sin;    // [positions, D / 2]
  const int32_t* positions;  // [R]
  int64_t R;
  int H, D;
  bool inverse;
  DType dtype;
};

template <class Backend>
void rope(Backend, const Rope&, Stream);

}  // namespace nanovlm::kernels
