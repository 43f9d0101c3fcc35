// Moving whole rows on a CPU: bound by memory.
#include "kernels/rows/rows.h"

#include <cstring>
#include <type_traits>

#include "kernels/cpu_math.h"

namespace nanovlm::kernels {
namespace {

template <class In, class Out>
void copy_row(const In* x, Out* y, int64_t C) {
  if constexpr (std::is_same_v<In, Out>) {
    std::memcpy(y, x, C * sizeof(In));
  } else {
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) store(y[c], static_cast<float>(x[c]));
  }
}

// Gather: y[r] = x[index[r]]. Scatter: y[index[r]] = x[r].
template <bool kScatter, class Rows>
void move_rows(const Rows& a) {
  with_float(a.in, [&]<class In>(Type<In>) {
    with_float(a.out, [&]<class Out>(Type<Out>) {
      parallel_rows(a.R, a.C, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const int64_t from = kScatter ? row : a.index[row], to = kScatter ? a.index[row] : row;
          copy_row(as<In>(a.x) + from * a.C, as<Out>(a.y) + to * a.C, a.C);
        }
      });
    });
  });
}

// Columns [first, last) of every target's sum.
template <class T>
void add_rows(const GatherRowsBackward& a, int64_t first, int64_t last) {
  constexpr int64_t kTile = 128;
  for (int64_t u = 0; u < a.U; ++u) {
    if (a.target[u] < 0) continue;
    for (int64_t tile = first; tile < last; tile += kTile) {
      const int64_t width = tile + kTile < last ? kTile : last - tile;
      float sum[kTile] = {};
      for (int32_t i = a.starts[u]; i < a.starts[u + 1]; ++i) {
        const T* dy = as<T>(a.dy) + a.order[i] * a.C + tile;
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) sum[c] += static_cast<float>(dy[c]);
      }
      float* dx = a.dx + a.target[u] * a.C + tile;
#pragma omp simd
      for (int64_t c = 0; c < width; ++c) dx[c] += sum[c];
    }
  }
}

}  // namespace

template <>
void gather_rows(ThisBackend, const GatherRows& a, Stream) {
  move_rows<false>(a);
}

template <>
void scatter_rows(ThisBackend, const ScatterRows& a, Stream) {
  move_rows<true>(a);
}

template <>
void gather_rows_backward(ThisBackend, const GatherRowsBackward& a, Stream) {
  if (a.U == 0) return;
  // Threads share the columns, a cache line at a time: targets may differ widely in their number of rows.
  constexpr int64_t kColumns = 16;
  const int64_t rows = a.starts[a.U] - a.starts[0];
  with_float(a.dtype, [&]<class T>(Type<T>) {
    parallel_for(ceil_div(a.C, kColumns), ceil_div(kGrain, kColumns * (rows + 1)), [&](int64_t begin, int64_t end) {
      add_rows<T>(a, begin * kColumns, end * kColumns < a.C ? end * kColumns : a.C);
    });
  });
}

}  // namespace nanovlm::kernels
