// RMSNorm and LayerNorm on a CPU: bound by memory. RMSNorm is LayerNorm without mean and bias, so one function does
// both.
//
// Forward and dx: threads take rows; a row comes from memory once and then from L1. dw and db are sums over rows, and
// the same whatever the number of threads: rows are taken in chunks that stay in the cache, threads share a chunk's
// columns, and each column adds its chunk's sum, rows in order, to what it has.
#include "kernels/norm/norm.h"

#include "kernels/cpu_math.h"

namespace nanovlm::kernels {
namespace {

constexpr int64_t kChunkRows = 128;    // x and dy: 590 KB of f32 at C = 576
constexpr int64_t kChunkColumns = 16;  // one cache line of f32: the unit in which threads share columns

// Row `row` of x': x + delta, stored in a.sum, or x itself where there is no delta.
template <class T>
const float* input_row(const LayerNorm& a, int64_t row) {
  const int64_t C = a.C;
  const float* x = a.x + row * C;
  if (!a.delta) return x;
  const T* delta = as<T>(a.delta) + row * C;
  float* sum = a.sum + row * C;
#pragma omp simd
  for (int64_t c = 0; c < C; ++c) sum[c] = x[c] + static_cast<float>(delta[c]);
  return sum;
}

// Where not kCentered, a.b and a.m are null and the mean is taken as 0.
template <class T, bool kCentered>
void forward_rows(const LayerNorm& a, int64_t begin, int64_t end) {
  const int64_t C = a.C;
  const float *w = a.w, *b = a.b;
  for (int64_t row = begin; row < end; ++row) {
    const float* x = input_row<T>(a, row);
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

template <class T, bool kCentered>
void backward(const LayerNormBackward& a) {
  for (int64_t chunk = 0; chunk < a.R; chunk += kChunkRows) {
    const int64_t rows = chunk + kChunkRows < a.R ? kChunkRows : a.R - chunk;
    parallel_rows(rows, a.C, [&](int64_t begin, int64_t end) { dx_rows<T, kCentered>(a, chunk + begin, chunk + end); });
    if (!a.dw) continue;
    const auto add_columns = [&](int64_t begin, int64_t end) {
      const int64_t last = end * kChunkColumns < a.C ? end * kChunkColumns : a.C;
      add_parameter_gradients<T, kCentered>(a, chunk, chunk + rows, begin * kChunkColumns, last);
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
  const LayerNormBackward b{a.dy, a.x, a.w, nullptr, a.r, a.dsum, a.dx, a.ddelta, a.dw, nullptr, a.R, a.C, a.dtype};
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
