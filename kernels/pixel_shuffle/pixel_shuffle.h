// Pixel shuffle (space to depth): [B, n, n, C] -> [B, n/f, n/f, f, f, C], so that f x f neighbouring patches become the
// channels of one token, in the order (dy, dx, c). `inverse` moves the other way, which is also the gradient.
#pragma once
#include "kernels/types.h"

namespace nanovlm::kernels {

struct PixelShuffle {
  const void* x;  // [B, n * n, C] dtype; if inverse [B, (n/f)^2, f * f * C]
  void* y;        // the other one
  int64_t B, C;
  int n, f;  // f divides n
  bool inverse;
  DType dtype;
};

template <class Backend>
void pixel_shuffle(Backend, const PixelShuffle&, Stream);

}  // namespace nanovlm::kernels
