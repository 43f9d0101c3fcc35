// Attention of one new token over a cache. A task is a stretch of one sequence's keys for the query heads that share
// them; each leaves its own softmax, and these are then joined in order, so that the result does not depend on the
// number of threads. Bound by memory: the cache is read once.
#include "kernels/attention/streaming.h"

namespace nanovlm::kernels {
namespace {

constexpr int64_t kStretch = 512;  // keys of a task: a multiple of kTile

struct DecodeScratch {
  int64_t step;
  Floats q, keys, keys_transposed, values, scores;

  explicit DecodeScratch(const AttentionDecode& a)
      : step(round_up(a.D, kLanes)),
        q(round_up(a.H / a.G, kStrip) * step),
        keys(kTile * step),
        keys_transposed(kTile * step),
        values(kTile * step),
        scores(kBlock * kTile) {}
};

template <class T>
void attend_stretch(const AttentionDecode& a, int64_t b, int g, int64_t first, int64_t last, const QueryRows& rows,
                    const DecodeScratch& s) {
  for (int64_t h = 0; h < rows.rows; ++h)
    load_plain(as<T>(a.q) + ((b * a.H) + g * rows.rows + h) * a.D, s.q + h * s.step, a.D);
  start(rows, s.step);
  for (int64_t key = first; key < last; key += kTile) {
    const int64_t length = key + kTile < last ? kTile : last - key;
    for (int64_t j = 0; j < length; ++j) {
      const int64_t at = ((b * a.capacity + key + j) * a.G + g) * a.D;
      load_plain(as<T>(a.k) + at, s.keys + j * s.step, a.D);
      load_plain(as<T>(a.v) + at, s.values + j * s.step, a.D);
    }
    transpose(s.keys, s.step, s.keys_transposed, length, a.D);
    for (int64_t h = 0; h < rows.rows; h += kBlock) {
      const QueryRows block{rows.q + h * s.step, rows.o + h * s.step, rows.max + h, rows.sum + h,
                            h + kBlock < rows.rows ? kBlock : rows.rows - h};
      attend(block, {s.keys_transposed, s.values, kNoBias, length}, {kTile, 0, 0}, a.scale, a.D, s.step, s.scores);
    }
  }
}

// o of one head from what the stretches left of it, `apart` heads from one stretch to the next.
template <class T>
void join(const QueryRows& parts, int64_t stretches, int64_t apart, int64_t step, T* o, int D) {
  float max = parts.max[0];
  for (int64_t i = 1; i < stretches; ++i) max = parts.max[i * apart] > max ? parts.max[i * apart] : max;
  float sum = 0;
  for (int64_t i = 0; i < stretches; ++i) {
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
  const int64_t n = a.H / a.G, room = round_up(n, kStrip), step = round_up(a.D, kLanes);
  int64_t longest = 0;
  for (int64_t b = 0; b < a.B; ++b) longest = a.lengths[b] > longest ? a.lengths[b] : longest;
  const int64_t stretches = ceil_div(longest, kStretch);
  const Floats o(a.B * a.G * stretches * room * step), max(a.B * a.G * stretches * room),
      sum(a.B * a.G * stretches * room);
  with_float(a.dtype, [&]<class T>(Type<T>) {
    for_each_task<DecodeScratch>(a.B * a.G * stretches, a, [&](int64_t task, const DecodeScratch& s) {
      const int64_t b = task / stretches / a.G, first = task % stretches * kStretch;
      const int64_t last = first + kStretch < a.lengths[b] ? first + kStretch : a.lengths[b];
      const QueryRows rows{s.q, o + task * room * step, max + task * room, sum + task * room, n};
      if (first < last) attend_stretch<T>(a, b, static_cast<int>(task / stretches % a.G), first, last, rows, s);
    });
    for (int64_t head = 0; head < a.B * a.H; ++head) {
      const int64_t at = head / n * stretches * room + head % n;
      join({nullptr, o + at * step, max + at, sum + at, 1}, ceil_div(a.lengths[head / a.H], kStretch), room, step,
           as<T>(a.o) + head * a.D, a.D);
    }
  });
}

}  // namespace nanovlm::kernels
