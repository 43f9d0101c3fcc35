// Scores of 16 rows a warp that are in registers together, as tensor cores leave them, and the softmax that runs along.
//
// A lane has rows lane / 4 and 8 further ("halves"), and of every 8 keys 2 (lane % 4) and the one behind.
#pragma once
#include "kernels/attention/mma_rows.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

// What a row has met so far.
struct WholeRow {
  bool keyless;    // the mask hides all that it would see
  float max, sum;  // of scores in powers of two; of weights: this lane's part
};

// The scores of 16 rows against kKeys keys, and what becomes of them.
template <int kKeys>
struct WholeScores {
  float s[kKeys / 8][4];

  // Hides keys from `ends` on, none of them below `open`, which is the same for a warp; column 0 is key 0.
  __device__ void hide(const int (&ends)[2], int open = 0) {
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      if (16 * i + 16 <= open) continue;
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int key = 16 * i + e / 2 * 8 + e % 2;
          if (key >= ends[half] - thread_in_block() % 4 * 2) s[2 * i + e / 2][2 * half + e % 2] = -INFINITY;
        }
    }
  }
  // Hides keys by a mask, but for rows that it leaves without any, which attend evenly. open(i) has a bit for each of
  // the keys from 16 i on.
  template <class Open>
  __device__ void hide(const WholeRow (&rows)[2], const Open& open) {
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      const unsigned bits = open(i) >> thread_in_block() % 4 * 2;
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float& x = s[2 * i + e / 2][2 * half + e % 2];
          x = rows[half].keyless ? 0 : bits >> (e / 2 * 8 + e % 2) & 1 ? x : -INFINITY;
        }
    }
  }

  // A row's scores become weights, not yet divided by their sum. Returns what its earlier ones then count for.
  __device__ float soften(WholeRow& row, int half, float scale) {
    float max = s[0][2 * half];
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) max = fmaxf(max, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
    max = fmaxf(row.max, row_max(max) * scale);
    const float origin = max == -INFINITY ? 0 : max;  // nothing seen yet
    const float shrink = ex2(row.max - origin);
    row.max = max, row.sum *= shrink;
    float sum[2] = {};  // two chains of additions
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& x = s[j][2 * half + e];
        x = ex2(fmaf(x, scale, -origin));
        sum[e] += x;
      }
    row.sum += sum[0] + sum[1];
    return shrink;
  }
};

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
