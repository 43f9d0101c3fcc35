// Pixel shuffle on a GPU: f * C neighbouring entries stay neighbours, so a warp copies a run of them, 16 bytes a lane
// where the runs allow it. Nothing is computed: entries are bytes. Bound by memory.
#include "kernels/pixel_shuffle/pixel_shuffle.h"

#include "kernels/elements.cuh"

namespace nanovlm::kernels {
namespace {

constexpr int kWarps = 8;  // runs a block copies

// Run (b, row, column, dy) of the shuffled side is run (b, row, dy, column) of the plain one; a side is n / f.
__global__ void pixel_shuffle_kernel(const uint8_t* x, uint8_t* y, int64_t runs, int64_t bytes, int side, int f,
                                     bool inverse, bool vectors) {
  const int thread = thread_in_block();
  const int64_t shuffled = int64_t(blockIdx.x) * kWarps + thread / kWarp;
  if (shuffled >= runs) return;
  const int64_t dy = shuffled % f, column = shuffled / f % side, above = shuffled / (int64_t(f) * side);
  const int64_t plain = (above * f + dy) * side + column;
  const uint8_t* from = x + (inverse ? shuffled : plain) * bytes;
  uint8_t* to = y + (inverse ? plain : shuffled) * bytes;
  for_elements<16>(bytes, vectors, thread % kWarp, kWarp, [&]<int W>(Width<W>, int64_t i) {
    if constexpr (W == 16)
      st16(to + i, ld16(from + i));
    else
      to[i] = from[i];
  });
}

}  // namespace

template <>
void pixel_shuffle(ThisBackend, const PixelShuffle& a, Stream stream) {
  const int side = a.n / a.f;
  const int64_t runs = a.B * a.n * side, bytes = a.f * a.C * size_of(a.dtype);
  if (runs == 0 || bytes == 0) return;
  launch("pixel_shuffle", pixel_shuffle_kernel, {ceil_div(runs, kWarps), kWarps * kWarp, 0, stream}, a.x, a.y, runs,
         bytes, side, a.f, a.inverse, bytes % 16 == 0 && aligned(a.x, a.y));
}

}  // namespace nanovlm::kernels
