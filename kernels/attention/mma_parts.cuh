// Rows of bf16 by the quarter, which whole-segment kernels keep in registers: straight from global memory, as one
// operand of a product whose other rows lie in shared memory.
//
// Sums over a head's columns may run in any order, so lane t of four holds columns 4 t ... 4 t + 3 of every 16: what
// one load brings, of either half, which are the pairs that RoPE turns together. Step s of a product over the head
// takes the columns of step s, and rows that it meets lie in shared memory in that order. A sum of such rows has the
// order too: each lane ends up with its quarter, which it can turn back and store as it is.
#pragma once
#include "kernels/attention/mma_rows.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

// The next of the units of work that a block's warps share, counted from 0 on. Which warp takes which changes no
// result.
__device__ inline int take_unit(int* next) {
  const int unit = thread_in_block() % kWarp == 0 ? atomicAdd(next, 1) : 0;
  return __shfl_sync(kFullMask, unit, 0);
}

// A lane's quarter of a row: words 2 s and 2 s + 1 are its columns of 16 s ... 16 s + 15.
template <int D>
struct RowPart {
  static constexpr int kSteps = D / 16;
  uint32_t word[2 * kSteps];

  RowPart() = default;
  // Zeros if it is not there; `row` may be read all the same.
  __device__ RowPart(const bf16* row, bool there, int lane) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const auto words = std::bit_cast<Vec<uint32_t, 2>>(ld8(row + 16 * s + 4 * lane));
      word[2 * s] = there ? words[0] : 0, word[2 * s + 1] = there ? words[1] : 0;
    }
  }

  __device__ void turn(Angles at, int lane) {
    if (!at.cos) return;
#pragma unroll
    for (int s = 0; s < kSteps / 2; ++s) {
      Vec<bf16, 4> low = columns(s), high = columns(s + kSteps / 2);
      rotate(low, high, at, 16 * s + 4 * lane);
      put(s, low), put(s + kSteps / 2, high);
    }
  }
  // Into a row of shared memory, which four lanes fill: piece i of 16 bytes at piece i ^ swizzle.
  __device__ void share(bf16* row, int lane, int swizzle = 0) const {
#pragma unroll
    for (int i = 0; i < 2 * kSteps; ++i) *reinterpret_cast<uint32_t*>(row + 8 * (i ^ swizzle) + 2 * lane) = word[i];
  }

 private:
  __device__ Vec<bf16, 4> columns(int step) const {
    return std::bit_cast<Vec<bf16, 4>>(Vec<uint32_t, 2>{word[2 * step], word[2 * step + 1]});
  }
  __device__ void put(int step, const Vec<bf16, 4>& columns) {
    const auto words = std::bit_cast<Vec<uint32_t, 2>>(columns);
    word[2 * step] = words[0], word[2 * step + 1] = words[1];
  }
};

// s[16, 8 N] += own[16, D] rows[8 N, D]^T: a lane has parts of own rows lane / 4 (upper) and 8 further (lower). Only
// the first `pairs` 16 of rows are met.
template <int D, int N>
__device__ void multiply_parts(float (&s)[N][4], const RowPart<D>& upper, const RowPart<D>& lower, const bf16* rows,
                               int pairs = N / 2) {
  const int lane = thread_in_block() % kWarp;
  const bf16* mine = rows + (lane / 16 * 8 + lane % 8) * (D + 8) + lane / 8 % 2 * 8;
#pragma unroll
  for (int j = 0; j < N / 2; ++j) {
    if (j >= pairs) continue;
#pragma unroll
    for (int c = 0; c < D / 16; ++c) {
      const uint32_t a[4] = {upper.word[2 * c], lower.word[2 * c], upper.word[2 * c + 1], lower.word[2 * c + 1]};
      uint32_t b[4];
      ldmatrix_x4(b, mine + 16 * j * (D + 8) + 16 * c);
      const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
      mma_m16n8k16(s[2 * j], a, low);
      mma_m16n8k16(s[2 * j + 1], a, high);
    }
  }
}

// A lane's quarter of row lane / 4 + 8 half of a gradient, turned back, into global memory.
template <int D>
__device__ void store_part(bf16* row, const float (&sum)[D / 8][4], int half, Angles at) {
#pragma unroll
  for (int s = 0; s < D / 32; ++s) {
    const int d = 16 * s + thread_in_block() % 4 * 4;
    Vec<float, 4> low, high;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      low[i] = sum[2 * s + i / 2][2 * half + i % 2];
      high[i] = sum[2 * s + D / 16 + i / 2][2 * half + i % 2];
    }
    if (at.cos) turn_columns_back<4>(&low[0], &high[0], at, d);
    store_floats<4>(row + d, low), store_floats<4>(row + d + D / 2, high);
  }
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
