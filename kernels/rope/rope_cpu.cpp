// Rotary position embedding: every row is read and written once, so memory bounds it. fp32 arithmetic, one rounding.
#include "kernels/cpu_math.h"
#include "kernels/rope/rope.h"
#include "kernels/rope/rotate.h"

namespace nanovlm::kernels {

template <>
void rope(ThisBackend, const Rope& a, Stream) {
  with_float(a.dtype, [&]<class T>(Type<T>) {
    const int64_t width = static_cast<int64_t>(a.H) * a.D;
    parallel_rows(a.R, width, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t angles = static_cast<int64_t>(a.positions[r]) * (a.D / 2);
        for (int64_t at = r * width; at < (r + 1) * width; at += a.D)
          rotate<T>(as<T>(a.x) + at, as<T>(a.y) + at, a.cos + angles, a.sin + angles, a.D, a.inverse);
      }
    });
  });
}

}  // namespace nanovlm::kernels
