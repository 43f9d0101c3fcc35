// The gradient of attention on the host. A task is one segment's query heads that share a key/value head: its rows of
// dq, dk and dv are written by nobody else. Chunks of queries walk over tiles of keys as in the forward direction;
//
//   p = e^(scale s - lse),   ds = scale p (do . v - delta),   delta = do . o
//   dv += p^T do,   dq' += ds k',   dk' += ds^T q',   and dq, dk are dq', dk' rotated back
//
// Rotated q and k are rounded to bf16 under bf16, p and ds stay fp32. Scratch memory holds dk and dv of the segment in
// fp32. Bound by arithmetic: 10 D flop a score.
#include "kernels/attention/tiles.h"

namespace nanovlm::kernels {
namespace {

struct BackwardScratch {
  int64_t step;
  Floats q, d_o, dq, lse, delta;                                  // of a chunk, head by head
  Floats keys, values, keys_transposed, values_transposed, bias;  // of a tile
  Floats p, ds;                                                   // of a block and a tile
  Floats dk, dv;                                                  // of the segment

  explicit BackwardScratch(const AttentionShape& a)
      : step(round_up(a.D, kLanes)),
        q(a.H / a.G * kChunk * step),
        d_o(a.H / a.G * kChunk * step),
        dq(a.H / a.G * kChunk * step),
        lse(a.H / a.G * kChunk),
        delta(a.H / a.G * kChunk),
        keys(kTile * step),
        values(kTile * step),
        keys_transposed(kTile * step),
        values_transposed(kTile * step),
        bias(kTile),
        p(kBlock * kTile),
        ds(kBlock * kTile),
        dk(round_up(a.longest, kTile) * step),
        dv(round_up(a.longest, kTile) * step) {}
};

template <class T>
float dot_product(const float* x, const T* y, int D) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int d = 0; d < D; ++d) sum += x[d] * static_cast<float>(y[d]);
  return sum;
}

template <class T>
void load_queries(const AttentionBackward& a, const Chunk& c, const BackwardScratch& s) {
  const int n = a.shape.H / a.shape.G, D = a.shape.D;
  for (int h = 0; h < n; ++h)
    for (int64_t row = c.first; row < c.last; ++row) {
      const int64_t at = h * kChunk + row - c.first, head = c.g * n + h, out = row * a.shape.H + head;
      load_rotated(a.shape, as<T>(a.q) + row * a.q_stride + head * D, s.q + at * s.step,
                   position_of(a.shape, row, c.begin));
      load_plain(as<T>(a.d_o) + out * D, s.d_o + at * s.step, D);
      s.lse[at] = a.lse[out];
      s.delta[at] = dot_product(s.d_o + at * s.step, as<T>(a.o) + out * D, D);
    }
  fill(s.dq, n * kChunk * s.step, 0);
}

// Returns the tile's number of keys.
template <class T>
int64_t load_tile(const AttentionBackward& a, const Chunk& c, const BackwardScratch& s, int64_t first) {
  const int64_t length = first + kTile < c.end ? kTile : c.end - first;
  load_keys(a.shape, as<T>(a.k) + c.g * a.shape.D, a.k_stride, c.begin, first, length, s.keys, s.step, s.bias);
  transpose(s.keys, s.step, s.keys_transposed, length, a.shape.D);
  for (int64_t row = 0; row < length; ++row)
    load_plain(as<T>(a.v) + (first + row) * a.v_stride + c.g * a.shape.D, s.values + row * s.step, a.shape.D);
  transpose(s.values, s.step, s.values_transposed, length, a.shape.D);
  return length;
}

// One row: scores -> probabilities p, and do . v -> ds.
void differentiate(float* p, float* ds, const float* bias, float score_scale, float scale, float lse, float delta,
                   int64_t seen, int64_t N) {
#pragma omp simd
  for (int64_t i = 0; i < N; ++i) {
    const float score = i < seen ? p[i] * score_scale + bias[i] : kHidden;
    p[i] = exp(score - lse);
    ds[i] = scale * p[i] * (ds[i] - delta);
  }
}

// `rows` queries of head h, from `row` on, meet the tile that starts at key `first`.
void meet(const AttentionShape& a, const BackwardScratch& s, int64_t at, int64_t rows, int64_t key, int64_t length,
          const Sight& sight) {
  const int64_t seen = sight.of(rows - 1, length), N = round_up(seen, kLanes);
  if (seen <= 0) return;
  float *q = s.q + at * s.step, *d_o = s.d_o + at * s.step;
  product<false>(s.p, kTile, {q, s.step, 1}, s.keys_transposed, kTile, rows, N, a.D);
  product<false>(s.ds, kTile, {d_o, s.step, 1}, s.values_transposed, kTile, rows, N, a.D);
  for (int64_t r = 0; r < rows; ++r) {
    const bool keyless = r < sight.keyless;
    differentiate(s.p + r * kTile, s.ds + r * kTile, keyless ? kNoBias : s.bias, keyless ? 0 : a.scale, a.scale,
                  s.lse[at + r], s.delta[at + r], sight.of(r, length), N);
  }
  product<true>(s.dq + at * s.step, s.step, {s.ds, kTile, 1}, s.keys, s.step, rows, s.step, seen);
  product<true>(s.dk + key * s.step, s.step, {s.ds, 1, kTile}, q, s.step, seen, s.step, rows);
  product<true>(s.dv + key * s.step, s.step, {s.p, 1, kTile}, d_o, s.step, seen, s.step, rows);
}

// Rotates a gradient back and stores it.
template <class T>
void store_rotated(const AttentionShape& a, const float* x, T* y, int64_t position) {
  if (a.cos) return rotate<T>(x, y, a.cos + position * (a.D / 2), a.sin + position * (a.D / 2), a.D, true);
  for (int d = 0; d < a.D; ++d) y[d] = T(x[d]);
}

template <class T>
void walk_chunk(const AttentionBackward& a, const Chunk& c, int64_t keyless, const BackwardScratch& s) {
  const int n = a.shape.H / a.shape.G;
  const int64_t rows = c.last - c.first;
  load_queries<T>(a, c, s);
  for (int64_t key = c.begin; key < (a.shape.causal ? c.last : c.end); key += kTile) {
    const int64_t length = load_tile<T>(a, c, s, key);
    for (int h = 0; h < n; ++h)
      for (int64_t row = 0; row < rows; row += kBlock)
        meet(a.shape, s, h * kChunk + row, row + kBlock < rows ? kBlock : rows - row, key - c.begin, length,
             sight_of(a.shape, c, keyless, row, key));
  }
  for (int h = 0; h < n; ++h)
    for (int64_t row = c.first; row < c.last; ++row)
      store_rotated(a.shape, s.dq + (h * kChunk + row - c.first) * s.step,
                    as<T>(a.dq) + row * a.q_stride + (c.g * n + h) * a.shape.D, position_of(a.shape, row, c.begin));
}

template <class T>
void differentiate_segment(const AttentionBackward& a, int64_t begin, int64_t end, int g, const BackwardScratch& s) {
  const int64_t keyless = keyless_rows(a.shape, begin, end);
  fill(s.dk, round_up(end - begin, kTile) * s.step, 0);
  fill(s.dv, round_up(end - begin, kTile) * s.step, 0);
  for (int64_t first = begin; first < end; first += kChunk)
    walk_chunk<T>(a, {begin, end, first, first + kChunk < end ? first + kChunk : end, g}, keyless, s);
  for (int64_t row = begin; row < end; ++row) {
    store_rotated(a.shape, s.dk + (row - begin) * s.step, as<T>(a.dk) + row * a.k_stride + g * a.shape.D,
                  position_of(a.shape, row, begin));
    T* dv = as<T>(a.dv) + row * a.v_stride + g * a.shape.D;
    for (int d = 0; d < a.shape.D; ++d) dv[d] = T(s.dv[(row - begin) * s.step + d]);
  }
}

}  // namespace

template <>
void attention_backward(ThisBackend, const AttentionBackward& a, Stream) {
  with_float(a.shape.dtype, [&]<class T>(Type<T>) {
    for_each_task<BackwardScratch>(a.shape.S * a.shape.G, a.shape, [&](int64_t task, const BackwardScratch& s) {
      const int32_t* bounds = a.shape.bounds + task / a.shape.G;
      differentiate_segment<T>(a, bounds[0], bounds[1], static_cast<int>(task % a.shape.G), s);
    });
  });
}

}  // namespace nanovlm::kernels
