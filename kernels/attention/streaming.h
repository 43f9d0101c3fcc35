// Softmax over keys that arrive tile by tile, for attention and attention_decode on the CPU:
//
//   max' = max(max, s),   o' = o e^(max - max') + e^(s - max') v,   sum' alike;   after the last tile o / sum is the
//   row
#pragma once
#include <cfloat>

#include "kernels/attention/tiles.h"

namespace nanovlm::kernels {
namespace {

struct ValueTile {
  const float* values;  // [kTile, D], rows `step` apart
  int64_t step;
  const float* bias;  // [kTile] 0, or kHidden for a key that the mask hides
  int64_t length;     // keys in the tile
};

// Query rows of one head, and what they have met so far.
struct QueryRows {
  const float* q;    // [rows, step], readable up to whole strips
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
  float largest = -FLT_MAX;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < N; ++i) {
    s[i] = i < seen ? s[i] * scale + bias[i] : kHidden;
    largest = s[i] > largest ? s[i] : largest;
  }
  return largest;
}

// s = e^(s - max). Returns the sum.
inline float exponentiate(float* s, float max, int64_t N) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < N; ++i) {
    s[i] = exp(s[i] - max);
    sum += s[i];
  }
  return sum;
}

// Raises each row's max to `largest` where that is larger, and returns in shrink what its earlier sums then count for.
inline void raise(float* max, const float* largest, float* shrink, int64_t rows) {
#pragma omp simd
  for (int64_t row = 0; row < rows; ++row) {
    const float raised = largest[row] > max[row] ? largest[row] : max[row];
    shrink[row] = exp(max[row] - raised);
    max[row] = raised;
  }
}

// Takes in a tile whose scores, not yet scaled, are in scores[rows, kTile]; N is round_up(keys in sight, kLanes).
inline void take_in(const QueryRows& r, const ValueTile& tile, Sight sight, float scale, int64_t step, float* scores,
                    int64_t N) {
  float largest[kBlock], shrink[kBlock];
  for (int64_t row = 0; row < r.rows; ++row) {
    const bool keyless = row < sight.keyless;
    largest[row] = mask_scores(scores + row * kTile, keyless ? kNoBias : tile.bias, keyless ? 0 : scale,
                               sight.of(row, tile.length), N);
  }
  raise(r.max, largest, shrink, r.rows);
  for (int64_t row = 0; row < r.rows; ++row) {
    r.sum[row] = r.sum[row] * shrink[row] + exponentiate(scores + row * kTile, r.max[row], N);
    for (int64_t d = 0; d < step; ++d) r.o[row * step + d] *= shrink[row];
  }
  product<true>(r.o, step, {scores, kTile, 1}, tile.values, tile.step, r.rows, step, sight.of(r.rows - 1, tile.length));
}

}  // namespace
}  // namespace nanovlm::kernels
