// Softmax over keys that arrive tile by tile, for attention and attention_decode on the CPU:
//
//   max' = max(max, s),   o' = o e^(max - max') + e^(s - max') v,   sum' alike;   after the last tile o / sum is the
//   row
#pragma once
#include <cfloat>

#include "kernels/attention/tiles.h"

namespace nanovlm::kernels {
namespace {

// A tile of keys and values. `step` is D rounded up to whole vectors.
struct KeyTile {
  const float* keys_transposed;  // [D, kTile]
  const float* values;           // [kTile, step]
  const float* bias;             // [kTile] 0, or kHidden for a key that the mask hides
  int64_t length;                // keys in the tile
};

// Query rows of one head, and what they have met so far.
struct QueryRows {
  const float* q;    // [rows, step], followed by zeros up to whole strips
  float* o;          // [rows, step]
  float *max, *sum;  // [rows]
  int64_t rows;
};

inline void start(const QueryRows& r, int64_t step) {
  fill(r.o, r.rows * step, 0);
  fill(r.max, r.rows, -FLT_MAX);
  fill(r.sum, r.rows, 0);
}

// Scores of one row, scaled and masked, `seen` of N being in sight. Returns the largest.
inline float mask_scores(float* s, const float* bias, float scale, int64_t seen, int64_t N) {
  Lanes largest = Lanes{} - FLT_MAX;
  for (int64_t n = 0; n < N; n += kLanes) {
    for (int64_t i = n; i < n + kLanes; ++i) s[i] = i < seen ? s[i] * scale + bias[i] : kHidden;
    const Lanes x = *reinterpret_cast<const Lanes*>(s + n);
    largest = x > largest ? x : largest;
  }
  float max = largest[0];
  for (int i = 1; i < kLanes; ++i) max = largest[i] > max ? largest[i] : max;
  return max;
}

// s = e^(s - max). Returns the sum.
inline float exponentiate(float* s, float max, int64_t N) {
  Lanes sum{};
  for (int64_t n = 0; n < N; n += kLanes) {
    for (int64_t i = n; i < n + kLanes; ++i) s[i] = exp(s[i] - max);
    sum += *reinterpret_cast<const Lanes*>(s + n);
  }
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += sum[i];
  return total;
}

// Lets the rows meet one tile. scores: scratch [kBlock, kTile]
inline void attend(const QueryRows& r, const KeyTile& tile, Sight sight, float scale, int D, int64_t step,
                   float* scores) {
  const int64_t seen = sight.of(r.rows - 1, tile.length), N = round_up(seen, kLanes);
  if (seen <= 0) return;
  product<false>(scores, kTile, {r.q, step, 1}, tile.keys_transposed, kTile, r.rows, N, D);
  for (int64_t row = 0; row < r.rows; ++row) {
    float* s = scores + row * kTile;
    const bool keyless = row < sight.keyless;
    const float largest =
        mask_scores(s, keyless ? kNoBias : tile.bias, keyless ? 0 : scale, sight.of(row, tile.length), N);
    const float max = largest > r.max[row] ? largest : r.max[row];
    const float shrink = exp(r.max[row] - max);
    r.max[row] = max;
    r.sum[row] = r.sum[row] * shrink + exponentiate(s, max, N);
    for (int64_t d = 0; d < step; ++d) r.o[row * step + d] *= shrink;
  }
  product<true>(r.o, step, {scores, kTile, 1}, tile.values, step, r.rows, step, seen);
}

}  // namespace
}  // namespace nanovlm::kernels
