// Attention of one new token over a cache. A task is a tile of one sequence's keys, for all heads, so that the cache is
// read once and in the order it lies in; each tile leaves its own softmax, and these are joined in order, whatever the
// number of threads. Bound by memory.
#include "kernels/attention/streaming.h"
#include "kernels/matmul/dot_products.h"

namespace nanovlm::kernels {
namespace {

// Query heads of a group, rounded up to what a product writes.
int64_t room_of(const AttentionDecode& a) { return round_up(a.H / a.G, kStrip); }

struct DecodeScratch {
  int64_t step;
  Floats q, values, scores;

  explicit DecodeScratch(const AttentionDecode& a)
      : step(round_up(a.D, kLanes)),
        q(a.H * step),
        values(kTile * a.G * a.D + kLanes),
        scores(a.G * room_of(a) * kTile) {}
};

// Scores of `length` keys, used where they lie: there are too few queries to pay for a transposed copy.
template <class T>
void score_keys(const AttentionDecode& a, const T* keys, int64_t length, const DecodeScratch& s) {
  const int64_t n = a.H / a.G, room = room_of(a);
  for (int64_t j = 0; j < length; ++j)
    for (int64_t g = 0; g < a.G; ++g)
      for (int64_t h = 0; h < n; h += kFewRows) {
        float score[kFewRows];
        const int64_t few = h + kFewRows < n ? kFewRows : n - h;
        dot_products(few, s.q + (g * n + h) * s.step, s.step, keys + (j * a.G + g) * a.D, a.D, score);
        for (int64_t i = 0; i < few; ++i) s.scores[(g * room + h + i) * kTile + j] = score[i];
      }
}

// What one tile leaves: rows [G, room] for the heads.
template <class T>
void attend_tile(const AttentionDecode& a, int64_t b, int64_t key, const QueryRows& rows, const DecodeScratch& s) {
  const int64_t n = a.H / a.G, room = room_of(a), length = key + kTile < a.lengths[b] ? kTile : a.lengths[b] - key;
  const int64_t width = static_cast<int64_t>(a.G) * a.D, at = (b * a.capacity + key) * width;
  for (int64_t h = 0; h < a.H; ++h) load_plain(as<T>(a.q) + (b * a.H + h) * a.D, s.q + h * s.step, a.D);
  score_keys(a, as<T>(a.k) + at, length, s);
  for (int64_t j = 0; j < length; ++j) load_plain(as<T>(a.v) + at + j * width, s.values + j * width, width);
  start(rows, s.step);
  for (int64_t g = 0; g < a.G; ++g)
    for (int64_t h = 0; h < n; h += kBlock) {
      const int64_t row = g * room + h;
      const QueryRows block{nullptr, rows.o + row * s.step, rows.max + row, rows.sum + row,
                            h + kBlock < n ? kBlock : n - h};
      take_in(block, {s.values + g * a.D, width, kNoBias, length}, {kTile, 0, 0}, a.scale, s.step,
              s.scores + row * kTile, round_up(length, kLanes));
    }
}

// o of one head from what the tiles left of it, `apart` rows from one tile to the next.
template <class T>
void join(const QueryRows& parts, int64_t tiles, int64_t apart, int64_t step, T* o, int D) {
  float max = parts.max[0];
  for (int64_t i = 1; i < tiles; ++i) max = parts.max[i * apart] > max ? parts.max[i * apart] : max;
  float sum = 0;
  for (int64_t i = 0; i < tiles; ++i) {
    const float share = exp(parts.max[i * apart] - max);
    sum += share * parts.sum[i * apart];
    float* part = parts.o + i * apart * step;
    for (int d = 0; d < D; ++d) parts.o[d] = i == 0 ? share * part[d] : parts.o[d] + share * part[d];
  }
  for (int d = 0; d < D; ++d) o[d] = T(parts.o[d] / sum);
}

}  // namespace

template <>
void attention_decode(ThisBackend, const AttentionDecode& a, Stream) {
  const int64_t n = a.H / a.G, rows = a.G * room_of(a), step = round_up(a.D, kLanes);
  int64_t longest = 0;
  for (int64_t b = 0; b < a.B; ++b) longest = a.lengths[b] > longest ? a.lengths[b] : longest;
  const int64_t tiles = ceil_div(longest, kTile);
  const Floats o(a.B * tiles * rows * step), max(a.B * tiles * rows), sum(a.B * tiles * rows);
  with_float(a.dtype, [&]<class T>(Type<T>) {
    for_each_task<DecodeScratch>(a.B * tiles, a, [&](int64_t task, const DecodeScratch& s) {
      const int64_t b = task / tiles, key = task % tiles * kTile, row = task * rows;
      if (key < a.lengths[b]) attend_tile<T>(a, b, key, {nullptr, o + row * step, max + row, sum + row, rows}, s);
    });
    for (int64_t head = 0; head < a.B * a.H; ++head) {
      const int64_t b = head / a.H, row = b * tiles * rows + head % a.H / n * room_of(a) + head % n;
      join({nullptr, o + row * step, max + row, sum + row, 1}, ceil_div(a.lengths[b], kTile), rows, step,
           as<T>(a.o) + head * a.D, a.D);
    }
  });
}

}  // namespace nanovlm::kernels
