// Pixel shuffle on a CPU: f * C neighbouring entries stay neighbours, so it is a copy in runs. Bound by memory.
#include "kernels/pixel_shuffle/pixel_shuffle.h"

#include <cstring>

#include "kernels/cpu_math.h"

namespace nanovlm::kernels {

template <>
void pixel_shuffle(ThisBackend, const PixelShuffle& a, Stream) {
  const int64_t n = a.n, f = a.f, side = n / f;
  const int64_t run = f * a.C, bytes = run * size_of(a.dtype);
  // Run (b, row, column, dy) of the shuffled side is run (b, row, dy, column) of the plain one.
  parallel_rows(a.B * n * side, run, [&](int64_t begin, int64_t end) {
    for (int64_t shuffled = begin; shuffled < end; ++shuffled) {
      const int64_t dy = shuffled % f, column = shuffled / f % side, above = shuffled / (f * side);
      const int64_t plain = (above * f + dy) * side + column;
      const int64_t from = a.inverse ? shuffled : plain, to = a.inverse ? plain : shuffled;
      std::memcpy(as<char>(a.y) + to * bytes, as<char>(a.x) + from * bytes, bytes);
    }
  });
}

}  // namespace nanovlm::kernels
