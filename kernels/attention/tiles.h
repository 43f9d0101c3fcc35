// What attention's directions share on the CPU: scratch memory, a product of small matrices that stay in cache, and the
// loading of rows. Internal linkage, as in kernels/cpu_math.h.
#pragma once
#include <atomic>
#include <cmath>

#include "kernels/attention/attention.h"
#include "kernels/cpu_math.h"
#include "kernels/cpu_scratch.h"
#include "kernels/cpu_vectors.h"
#include "kernels/rope/rotate.h"

namespace nanovlm::kernels {
namespace {

// Registers in a row of the product's register block: with kStrip rows they leave some for the operands.
constexpr int kVectors = kLanes == 16 ? 4 : 2;
constexpr int kStrip = 4;

constexpr int64_t kTile = 64;    // keys that are loaded together
constexpr int64_t kBlock = 16;   // queries of one head that meet a tile together
constexpr int64_t kChunk = 256;  // queries that share the loading of a tile: a multiple of kBlock

constexpr float kHidden = -INFINITY;  // the score of a key that may not be seen
constexpr float kNoBias[kTile] = {};

constexpr int64_t round_up(int64_t n, int64_t step) { return ceil_div(n, step) * step; }

inline void fill(float* x, int64_t n, float value) {
  for (int64_t i = 0; i < n; ++i) x[i] = value;
}

// An operand of a product: element (row, column) stands at data[row * row_step + column * column_step].
struct Strided {
  const float* data;
  int64_t row_step, column_step;
};

// kStrip rows of c, V vectors wide: the sums stay in registers while k runs. Unrolled whole, so that they do.
template <int V, bool Add>
void product_block(float* c, int64_t c_step, Strided a, const float* b, int64_t b_step, int64_t K) {
  Lanes sum[kStrip][V] = {};
  if constexpr (Add) {
#pragma GCC unroll 16
    for (int m = 0; m < kStrip; ++m)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) sum[m][v] = load(c + m * c_step + v * kLanes);
  }
  for (int64_t k = 0; k < K; ++k) {
#pragma GCC unroll 16
    for (int m = 0; m < kStrip; ++m)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v)
        sum[m][v] += a.data[m * a.row_step + k * a.column_step] * load(b + k * b_step + v * kLanes);
  }
#pragma GCC unroll 16
  for (int m = 0; m < kStrip; ++m)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) store(c + m * c_step + v * kLanes, sum[m][v]);
}

template <int V, bool Add>
void product_columns(float* c, int64_t c_step, Strided a, const float* b, int64_t b_step, int64_t M, int64_t K) {
  for (int64_t m = 0; m < M; m += kStrip) {
    product_block<V, Add>(c + m * c_step, c_step, a, b, b_step, K);
    a.data += kStrip * a.row_step;
  }
}

// c[M, N] = a[M, K] b[K, N], or += with Add. M and N are rounded up to multiples of kStrip and kLanes: c, a and b must
// have that much room, and c and b vector alignment.
template <bool Add>
void product(float* c, int64_t c_step, Strided a, const float* b, int64_t b_step, int64_t M, int64_t N, int64_t K) {
  int64_t n = 0;
  for (; n + kVectors * kLanes <= N; n += kVectors * kLanes)
    product_columns<kVectors, Add>(c + n, c_step, a, b + n, b_step, M, K);
  const int64_t left = ceil_div(N - n, kLanes);
  if constexpr (kVectors > 3)
    if (left == 3) product_columns<3, Add>(c + n, c_step, a, b + n, b_step, M, K);
  if constexpr (kVectors > 2)
    if (left == 2) product_columns<2, Add>(c + n, c_step, a, b + n, b_step, M, K);
  if (left == 1) product_columns<1, Add>(c + n, c_step, a, b + n, b_step, M, K);
}

// y[C, kTile] = the transpose of x[R, C]. R and C are rounded up to multiples of 4: x and y must have that much room.
inline void transpose(const float* x, int64_t x_step, float* y, int64_t R, int64_t C) {
  using Quad [[gnu::vector_size(4 * sizeof(float)), gnu::may_alias]] = float;
  const auto row = [](const float* p) { return *reinterpret_cast<const Quad*>(p); };
  for (int64_t c = 0; c < C; c += 4)
    for (int64_t r = 0; r < R; r += 4) {
      const float* from = x + r * x_step + c;
      const Quad a = row(from), b = row(from + x_step), e = row(from + 2 * x_step), f = row(from + 3 * x_step);
      const Quad ae_low = __builtin_shufflevector(a, e, 0, 4, 1, 5),
                 ae_high = __builtin_shufflevector(a, e, 2, 6, 3, 7);
      const Quad bf_low = __builtin_shufflevector(b, f, 0, 4, 1, 5),
                 bf_high = __builtin_shufflevector(b, f, 2, 6, 3, 7);
      Quad* to = reinterpret_cast<Quad*>(y + c * kTile + r);
      to[0] = __builtin_shufflevector(ae_low, bf_low, 0, 4, 1, 5);
      to[kTile / 4] = __builtin_shufflevector(ae_low, bf_low, 2, 6, 3, 7);
      to[2 * kTile / 4] = __builtin_shufflevector(ae_high, bf_high, 0, 4, 1, 5);
      to[3 * kTile / 4] = __builtin_shufflevector(ae_high, bf_high, 2, 6, 3, 7);
    }
}

template <class T>
void load_plain(const T* x, float* y, int64_t D) {
  for (int64_t d = 0; d < D; ++d) y[d] = static_cast<float>(x[d]);
}

// One head of q or k as it enters a product: rotated, and rounded to T.
template <class T>
void load_rotated(const AttentionShape& a, const T* x, float* y, int64_t position) {
  if (!a.cos) return load_plain(x, y, a.D);
  rotate<T>(x, y, a.cos + position * (a.D / 2), a.sin + position * (a.D / 2), a.D, false);
}

// Rows of the tables of cos and sin.
inline int64_t position_of(const AttentionShape& a, int64_t row, int64_t segment_begin) {
  return a.positions ? a.positions[row] : row - segment_begin;
}

// Keys of a tile as they enter a product, and what is added to their scores.
template <class T>
void load_keys(const AttentionShape& a, const T* k, int64_t stride, int64_t segment_begin, int64_t first,
               int64_t length, float* y, int64_t step, float* bias) {
  for (int64_t row = first; row < first + length; ++row) {
    load_rotated(a, k + row * stride, y + (row - first) * step, position_of(a, row, segment_begin));
    bias[row - first] = a.key_mask && !a.key_mask[row] ? kHidden : 0;
  }
}

// How many of the segment's first rows are left with no key by the mask. They attend evenly.
inline int64_t keyless_rows(const AttentionShape& a, int64_t begin, int64_t end) {
  if (!a.key_mask) return 0;
  int64_t row = begin;
  while (row < end && !a.key_mask[row]) ++row;
  return a.causal || row == end ? row - begin : 0;
}

// Queries `first` .. `last` - 1 of the segment with rows `begin` .. `end` - 1, for the heads that share key/value head
// g.
struct Chunk {
  int64_t begin, end, first, last;
  int g;
};

// Which keys of the tile the rows may see: row r the first `first + r * advance`, of which its mask hides some. The
// first `keyless` rows are those that the mask leaves without a key: for them all scores are equal.
struct Sight {
  int64_t first, advance, keyless;

  int64_t of(int64_t row, int64_t length) const {
    const int64_t seen = first + row * advance;
    return seen < length ? seen : length;
  }
};

// What a block of the chunk's queries, from its row `row` on, sees of the tile that starts at row `key`.
inline Sight sight_of(const AttentionShape& a, const Chunk& c, int64_t keyless, int64_t row, int64_t key) {
  return {a.causal ? c.first + row + 1 - key : kTile, a.causal, c.begin + keyless - (c.first + row)};
}

// Calls f(task, scratch) for every task below `count`, handing tasks out as threads become free: their sizes differ.
// Each task must write places of its own.
template <class Scratch, class Argument, class F>
void for_each_task(int64_t count, const Argument& argument, const F& f) {
  const int threads = static_cast<int>(count < omp_get_max_threads() ? count : omp_get_max_threads());
  RegionOrder order;
  RegionError error;
  std::atomic<int64_t> next = 0;  // not `omp for`, which a thread that has no scratch memory would have to meet
  order.fork();
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    order.begin();
    error.run([&] {
      const Scratch scratch(argument);
      for (int64_t task; (task = next++) < count;) f(task, scratch);
    });
    order.end();
  }
  order.join();
  error.rethrow();
}

}  // namespace
}  // namespace nanovlm::kernels
