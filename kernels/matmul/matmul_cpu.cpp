// Matrix products on the host: by the libraries (kernels/matmul_library.h). The sum of columns reads x once, a band of
// columns at a time, and is bound by memory.
#include "kernels/matmul/matmul.h"
#include "kernels/matmul_library.h"
#include "kernels/parallel.h"

namespace nanovlm::kernels {
namespace {

// Columns summed together: their sums stay in registers or the first-level cache.
constexpr int64_t kBand = 64;

template <class T>
void sum_band(const T* x, float* y, int64_t R, int64_t N, int64_t width) {
  float sum[kBand] = {};
  for (int64_t r = 0; r < R; ++r)
    for (int64_t n = 0; n < width; ++n) sum[n] += static_cast<float>(x[r * N + n]);
  for (int64_t n = 0; n < width; ++n) y[n] += sum[n];
}

}  // namespace

template <>
void matmul(ThisBackend, const Matmul& a, Stream) {
  if (a.M == 0 || a.N == 0) return;
  library_matmul(a);
}

template <>
void column_sum(ThisBackend, const ColumnSum& a, Stream) {
  with_float(a.dtype, [&]<class T>(Type<T>) {
    const T* x = static_cast<const T*>(a.x);
    parallel_for(ceil_div(a.N, kBand), 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin * kBand; n < end * kBand && n < a.N; n += kBand) {
        if (n + kBand <= a.N) {
          sum_band(x + n, a.y + n, a.R, a.N, kBand);  // a constant width: the compiler keeps the sums in registers
        } else {
          sum_band(x + n, a.y + n, a.R, a.N, a.N - n);
        }
      }
    });
  });
}

}  // namespace nanovlm::kernels
