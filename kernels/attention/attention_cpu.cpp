// Attention on the host. A task is a chunk of queries of one segment for all query heads that share one key/value head:
// it walks over the segment's keys a tile at a time, and a block of queries meets a tile in the first-level cache.
// Scratch memory does not grow with the segment.
//
// The rotated q and k are rounded to bf16 under bf16; the probabilities stay fp32.
// Bound by arithmetic: 4 D flop a score against the exponential and some ten operations more.
#include "kernels/attention/attention.h"

#include "kernels/attention/streaming.h"

namespace nanovlm::kernels {
namespace {

struct ForwardScratch {
  int64_t step;
  Floats q, o, max, sum, keys, keys_transposed, values, bias, scores;

  explicit ForwardScratch(const AttentionShape& a)
      : step(round_up(a.D, kLanes)),
        q(a.H / a.G * kChunk * step),
        o(a.H / a.G * kChunk * step),
        max(a.H / a.G * kChunk),
        sum(a.H / a.G * kChunk),
        keys(kTile * step),
        keys_transposed(kTile * step),
        values(kTile * step),
        bias(kTile),
        scores(kBlock * kTile) {}
};

template <class T>
void load_queries(const Attention& a, const Chunk& c, const ForwardScratch& s) {
  const int n = a.shape.H / a.shape.G;
  for (int h = 0; h < n; ++h)
    for (int64_t row = c.first; row < c.last; ++row)
      load_rotated(a.shape, as<T>(a.q) + row * a.q_stride + (c.g * n + h) * a.shape.D,
                   s.q + (h * kChunk + row - c.first) * s.step, position_of(a.shape, row, c.begin));
}

// Returns the tile's number of keys.
template <class T>
int64_t load_tile(const Attention& a, const Chunk& c, const ForwardScratch& s, int64_t first) {
  const int D = a.shape.D;
  const int64_t length = first + kTile < c.end ? kTile : c.end - first;
  load_keys(a.shape, as<T>(a.k) + c.g * D, a.k_stride, c.begin, first, length, s.keys, s.step, s.bias);
  for (int64_t row = 0; row < length; ++row)
    load_plain(as<T>(a.v) + (first + row) * a.v_stride + c.g * D, s.values + row * s.step, D);
  transpose(s.keys, s.step, s.keys_transposed, length, D);
  return length;
}

QueryRows block_of(const Chunk& c, const ForwardScratch& s, int head, int64_t row) {
  const int64_t at = head * kChunk + row, left = c.last - c.first - row;
  return {s.q + at * s.step, s.o + at * s.step, s.max + at, s.sum + at, left < kBlock ? left : kBlock};
}

void meet(const Attention& a, const QueryRows& block, Sight sight, int64_t length, const ForwardScratch& s) {
  const int64_t seen = sight.of(block.rows - 1, length), N = round_up(seen, kLanes);
  if (seen <= 0) return;
  product<false>(s.scores, kTile, {block.q, s.step, 1}, s.keys_transposed, kTile, block.rows, N, a.shape.D);
  take_in(block, {s.values, s.step, s.bias, length}, sight, a.shape.scale, s.step, s.scores, N);
}

template <class T>
void store(const Attention& a, const Chunk& c, const ForwardScratch& s) {
  const int n = a.shape.H / a.shape.G, D = a.shape.D;
  for (int h = 0; h < n; ++h)
    for (int64_t row = c.first; row < c.last; ++row) {
      const int64_t at = h * kChunk + row - c.first, out = row * a.shape.H + c.g * n + h;
      const float share = 1 / s.sum[at];
      T* o = as<T>(a.o) + out * D;
      for (int d = 0; d < D; ++d) o[d] = T(s.o[at * s.step + d] * share);
      if (a.lse) a.lse[out] = s.max[at] + std::log(s.sum[at]);
    }
}

template <class T>
void attend_chunk(const Attention& a, const Chunk& c, const ForwardScratch& s) {
  const int n = a.shape.H / a.shape.G;
  const int64_t rows = c.last - c.first, keyless = keyless_rows(a.shape, c.begin, c.end);
  load_queries<T>(a, c, s);
  for (int h = 0; h < n; ++h)
    for (int64_t row = 0; row < rows; row += kBlock) start(block_of(c, s, h, row), s.step);

  for (int64_t key = c.begin; key < (a.shape.causal ? c.last : c.end); key += kTile) {
    const int64_t length = load_tile<T>(a, c, s, key);
    for (int h = 0; h < n; ++h)
      for (int64_t row = 0; row < rows; row += kBlock)
        meet(a, block_of(c, s, h, row), sight_of(a.shape, c, keyless, row, key), length, s);
  }
  store<T>(a, c, s);
}

}  // namespace

template <>
void attention(ThisBackend, const Attention& a, Stream) {
  const int64_t chunks = ceil_div(a.shape.longest, kChunk);
  with_float(a.shape.dtype, [&]<class T>(Type<T>) {
    for_each_task<ForwardScratch>(a.shape.S * a.shape.G * chunks, a.shape, [&](int64_t task, const ForwardScratch& s) {
      const int64_t segment = task / chunks / a.shape.G;
      Chunk c{a.shape.bounds[segment], a.shape.bounds[segment + 1], 0, 0, static_cast<int>(task / chunks % a.shape.G)};
      c.first = c.begin + task % chunks * kChunk;
      c.last = c.first + kChunk < c.end ? c.first + kChunk : c.end;
      if (c.first < c.end) attend_chunk<T>(a, c, s);
    });
  });
}

}  // namespace nanovlm::kernels
