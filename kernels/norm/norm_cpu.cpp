// RMSNorm and LayerNorm on a CPU: bound by memory. RMSNorm is LayerNorm without mean and bias, so one function does
// both.
//
// Forward and dx: threads take rows; a row comes from memory once and then from L1. dw and db are sums over rows, and
// the same whatever the number of threads: rows are taken in chunks that stay in the cache, threads share a chunk's
// columns, and each column adds its chunk's sum, rows in order, to what it has.
#include "kernels/norm/norm.h"

#include "kernels/cpu_math.h"
#include "kernels/cpu_scratch.h"

namespace nanovlm::kernels {
namespace {

constexpr int64_t kChunkRows = 128;    // x and dy: 590 KB of f32 at C = 576
constexpr int64_t kChunkColumns = 16;  // one cache line of f32: the unit in which threads share columns

// sum = x + delta
template <class T>
void add_row(const float* x, const T* delta, float* sum, int64_t C) {
#pragma omp simd
  for (int64_t c = 0; c < C; ++c) sum[c] = x[c] + static_cast<float>(delta[c]);
}

// Where not kCentered, a.b and a.m are null and the mean is taken as 0.
template <class T, bool kCentered>
void forward_rows(const LayerNorm& a, int64_t begin, int64_t end) {
  const int64_t C = a.C;
  const float *w = a.w, *b = a.b;
  const Floats unwanted(a.delta && !a.sum ? C : 0);  // a row of x' that nobody keeps
  for (int64_t row = begin; row < end; ++row) {
    const float* x = a.x + row * C;
    if (a.delta) {
      float* const sum = a.sum ? a.sum + row * C : unwanted;
      add_row(x, as<T>(a.delta) + row * C, sum, C);
      x = sum;
    }
    T* y = as<T>(a.y) + row * C;

    float m = 0, squares = 0;
    if constexpr (kCentered) {
#pragma omp simd reduction(+ : m)
      for (int64_t c = 0; c < C; ++c) m += x[c];
      m /= static_cast<float>(C);
      a.m[row] = m;
    }
#pragma omp simd reduction(+ : squares)
    for (int64_t c = 0; c < C; ++c) squares += (x[c] - m) * (x[c] - m);
    const float r = 1 / std::sqrt(squares / static_cast<float>(C) + a.eps);
    a.r[row] = r;

#pragma omp simd
    for (int64_t c = 0; c < C; ++c) {
      const float n = (x[c] - m) * r;
      store(y[c], kCentered ? n * w[c] + b[c] : n * w[c]);
    }
  }
}

template <class T, bool kCentered>
void dx_rows(const LayerNormBackward& a, int64_t begin, int64_t end) {
  const int64_t C = a.C;
  const float* w = a.w;
  for (int64_t row = begin; row < end; ++row) {
    const T* dy = as<T>(a.dy) + row * C;
    const float* x = a.x + row * C;
    const float* dsum = a.dsum ? a.dsum + row * C : nullptr;
    float* dx = a.dx + row * C;
    const float m = kCentered ? a.m[row] : 0, r = a.r[row];

    float mean_g = 0, mean_gn = 0;
#pragma omp simd reduction(+ : mean_g, mean_gn)
    for (int64_t c = 0; c < C; ++c) {
      const float g = static_cast<float>(dy[c]) * w[c];
      if (kCentered) mean_g += g;
      mean_gn += g * ((x[c] - m) * r);
    }
    mean_g /= static_cast<float>(C);
    mean_gn /= static_cast<float>(C);

#pragma omp simd
    for (int64_t c = 0; c < C; ++c) {
      const float g = static_cast<float>(dy[c]) * w[c];
      const float slope = r * (g - mean_g - (x[c] - m) * r * mean_gn);
      dx[c] = dsum ? dsum[c] + slope : slope;
    }
    if (a.ddelta) {
      T* ddelta = as<T>(a.ddelta) + row * C;
#pragma omp simd
      for (int64_t c = 0; c < C; ++c) store(ddelta[c], dx[c]);
    }
  }
}

// Adds rows [begin, end) to columns [first, last) of dw and db.
template <class T, bool kCentered>
void add_parameter_gradients(const LayerNormBackward& a, int64_t begin, int64_t end, int64_t first, int64_t last) {
  constexpr int64_t kTile = 4 * kChunkColumns;
  for (int64_t tile = first; tile < last; tile += kTile) {
    const int64_t width = tile + kTile < last ? kTile : last - tile;
    float dw[kTile] = {}, db[kTile] = {};
    for (int64_t row = begin; row < end; ++row) {
      const T* dy = as<T>(a.dy) + row * a.C + tile;
      const float* x = a.x + row * a.C + tile;
      const float m = kCentered ? a.m[row] : 0, r = a.r[row];
#pragma omp simd
      for (int64_t c = 0; c < width; ++c) {
        const float slope = static_cast<float>(dy[c]);
        dw[c] += slope * ((x[c] - m) * r);
        if (kCentered) db[c] += slope;
      }
    }
    for (int64_t c = 0; c < width; ++c) a.dw[tile + c] += dw[c];
    for (int64_t c = 0; kCentered && c < width; ++c) a.db[tile + c] += db[c];
  }
}

template <bool kCentered>
void forward(const LayerNorm& a) {
  with_float(a.dtype, [&]<class T>(Type<T>) {
    parallel_rows(a.R, a.C, [&](int64_t begin, int64_t end) { forward_rows<T, kCentered>(a, begin, end); });
  });
}

// Rows [first, first + count), whose x' is at x.
template <class T>
LayerNormBackward rows_of(const LayerNormBackward& a, int64_t first, int64_t count, const float* x) {
  const int64_t at = first * a.C;
  return {as<T>(a.dy) + at,
          x,
          nullptr,
          a.w,
          a.m ? a.m + first : nullptr,
          a.r + first,
          a.dsum ? a.dsum + at : nullptr,
          a.dx + at,
          a.ddelta ? as<T>(a.ddelta) + at : nullptr,
          a.dw,
          a.db,
          count,
          a.C,
          a.dtype};
}

template <class T, bool kCentered>
void backward(const LayerNormBackward& a) {
  const Floats sums(a.delta ? kChunkRows * a.C : 0);
  for (int64_t chunk = 0; chunk < a.R; chunk += kChunkRows) {
    const int64_t rows = chunk + kChunkRows < a.R ? kChunkRows : a.R - chunk;
    const LayerNormBackward part = rows_of<T>(a, chunk, rows, a.delta ? sums : a.x + chunk * a.C);
    parallel_rows(rows, a.C, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; a.delta && row < end; ++row)
        add_row(a.x + (chunk + row) * a.C, as<T>(a.delta) + (chunk + row) * a.C, sums + row * a.C, a.C);
      dx_rows<T, kCentered>(part, begin, end);
    });
    if (!a.dw) continue;
    const auto add_columns = [&](int64_t begin, int64_t end) {
      const int64_t last = end * kChunkColumns < a.C ? end * kChunkColumns : a.C;
      add_parameter_gradients<T, kCentered>(part, 0, rows, begin * kChunkColumns, last);
    };
    parallel_for(ceil_div(a.C, kChunkColumns), ceil_div(kGrain, rows * kChunkColumns), add_columns);
  }
}

}  // namespace

template <>
void rms_norm(ThisBackend, const RmsNorm& a, Stream) {
  forward<false>({a.x, a.delta, a.w, nullptr, a.sum, a.y, nullptr, a.r, a.R, a.C, a.eps, a.dtype});
}

template <>
void rms_norm_backward(ThisBackend, const RmsNormBackward& a, Stream) {
  const LayerNormBackward b{a.dy, a.x,      a.delta, a.w,     nullptr, a.r, a.dsum,
                            a.dx, a.ddelta, a.dw,    nullptr, a.R,     a.C, a.dtype};
  with_float(a.dtype, [&]<class T>(Type<T>) { backward<T, false>(b); });
}

template <>
void layer_norm(ThisBackend, const LayerNorm& a, Stream) {
  forward<true>(a);
}

template <>
void layer_norm_backward(ThisBackend, const LayerNormBackward& a, Stream) {
  with_float(a.dtype, [&]<class T>(Type<T>) { backward<T, true>(a); });
}

}  // namespace nanovlm::kernels
