// Rotary position embedding by itself, for the keys and queries that go with a KV cache (attention applies its own).
//
//   y[d] = x[d] c[d] - x[d + D/2] s[d],   y[d + D/2] = x[d + D/2] c[d + D/2] + x[d] s[d + D/2]
//
// with c = cos[position], s = sin[position]. The gradient is the same rotation by the negative angle (inverse = true):
//   dx[d] = dy[d] c[d] + dy[d + D/2] s[d + D/2],   dx[d + D/2] = dy[d + D/2] c[d + D/2] - dy[d] s[d]
#pragma once
#include "kernels/types.h"

namespace nanovlm::kernels {

struct Rope {
  const void* x;             // [R, H, D] dtype
  void* y;                   // [R, H, D] dtype (may be x itself)
  const float *cos, *sin;    // [positions, D]
  const int32_t* positions;  // [R]
  int64_t R;
  int H, D;
  bool inverse;
  DType dtype;
};

template <class Backend>
void rope(Backend, const Rope&, Stream);

}  // namespace nanovlm::kernels
