// Attention of bf16 by tensor cores for segments of up to 256 rows and head sizes 32 and 64: what training meets.
//
// A block owns a whole segment and key/value head: its keys are rotated once, and stay in shared memory with the
// values. A warp takes 16 rows of one query head at a time, the longest work first, straight from global memory into
// registers. The scores of a row against kKeys keys are in registers at once (kKeys / 2 a lane): against all of up to
// 128, so that the softmax is a plain one, else it runs along in two or three turns. Bound by memory up to about 128
// rows, above by issuing instructions.
#pragma once
#include "kernels/attention/mma_forward.cuh"
#include "kernels/attention/mma_parts.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

// Keys of a segment into shared memory, in the order of a RowPart; zeros up to `rows`.
template <int D>
__device__ void load_parts(bf16* to, int rows, const Attention& a, const Place& at) {
  for (int i = thread_in_block(); i < 4 * rows; i += threads_in_block()) {
    const int r = i / 4, t = i % 4;
    const int row = at.begin + min(r, at.rows() - 1);
    RowPart<D> part(static_cast<const bf16*>(a.k) + row * a.k_stride + at.g * D, r < at.rows(), t);
    part.turn(angles_of(a.shape, row, at.begin), t);
    part.share(to + r * (D + 8), t);
  }
}

// x[i] of the four lanes of a row becomes y[lane] of lane i: what a lane has of four matrices becomes what four lanes
// have of one.
__device__ inline void transpose_quad(uint32_t (&x)[4]) {
  const int t = thread_in_block() % 4;
#pragma unroll
  for (int step = 1; step < 4; step *= 2)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & step) continue;
      const uint32_t other = shfl_xor(t & step ? x[i] : x[i + step], step);
      if (t & step)
        x[i] = other;
      else
        x[i + step] = other;
    }
}

// What a row has met so far.
struct WholeRow {
  int end;         // it sees rows below
  bool keyless;    // though the mask hides them all
  float max, sum;  // of scores in powers of two; of weights: this lane's part
};

// The scores of 16 rows against up to kKeys keys, and what becomes of them. Keys come in pairs of 8, `pairs` of them.
template <int D, int kKeys>
struct WholeScores {
  float s[kKeys / 8][4] = {};

  // Hides what rows may not see of pair j, whose 16 keys start at row `key`. Bit 0 of `visible` is the first of them.
  __device__ void hide(int j, const WholeRow (&rows)[2], unsigned visible, int key) {
    const int column = thread_in_block() % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const unsigned seen = (rows[half].keyless ? kFullMask : visible) & bits_below(rows[half].end, key);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float& x = s[2 * j + e / 2][2 * half + e % 2];
        x = seen >> (column + e / 2 * 8 + e % 2) & 1 ? (rows[half].keyless ? 0 : x) : -INFINITY;
      }
    }
  }

  // A row's scores become weights, not yet divided by their sum. Returns what its earlier ones then count for.
  __device__ float soften(WholeRow& row, int half, int pairs, float scale) {
    float max = -INFINITY;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j)
      if (j / 2 < pairs) max = fmaxf(max, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
    max = fmaxf(row.max, row_max(max) * scale);
    const float origin = max == -INFINITY ? 0 : max;  // nothing seen yet
    const float shrink = ex2(row.max - origin);
    row.max = max, row.sum *= shrink;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
      if (j / 2 >= pairs) continue;
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& x = s[j][2 * half + e];
        x = ex2(fmaf(x, scale, -origin));
        row.sum += x;
      }
    }
    return shrink;
  }

  __device__ void add_values(float (&o)[D / 8][4], const bf16* values, int pairs) const {
    const int lane = thread_in_block() % kWarp;
    const bf16* mine = values + lane % 16 * (D + 8) + lane / 16 * 8;
#pragma unroll
    for (int j = 0; j < kKeys / 16; ++j) {
      if (j >= pairs) continue;
      const auto &x = s[2 * j], &y = s[2 * j + 1];
      const uint32_t a[4] = {pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(y[0], y[1]),
                             pack_bf16(y[2], y[3])};
#pragma unroll
      for (int c = 0; c < D / 16; ++c) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, mine + 16 * j * (D + 8) + 16 * c);
        const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
        mma_m16n8k16(o[2 * c], a, low);
        mma_m16n8k16(o[2 * c + 1], a, high);
      }
    }
  }
};

// One row of o, from what the four lanes of a row have of it.
template <int D>
__device__ void store_quad(bf16* row, const float (&o)[D / 8][4], int half, float factor, bool there) {
#pragma unroll
  for (int j = 0; j < D / 8; j += 4) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = pack_bf16(o[j + i][2 * half] * factor, o[j + i][2 * half + 1] * factor);
    transpose_quad(words);
    const Vec<uint32_t, 4> eight = {words[0], words[1], words[2], words[3]};
    if (there) st16(row + 8 * (j + thread_in_block() % 4), std::bit_cast<Vec<bf16, 8>>(eight));
  }
}

// Warps of a block: for two or three turns 7, since 208 rows (14 x 14 patches) are 13 times 16, in two rounds.
template <bool kOneTurn>
constexpr int kWholeForwardWarps = kOneTurn ? 8 : 7;

// kOneTurn: no segment has more than kKeys rows.
template <int D, int kKeys, bool kOneTurn>
__global__ void __launch_bounds__(kWholeForwardWarps<kOneTurn>* kWarp, 2) attention_whole_kernel(const Attention a) {
  const AttentionShape& shape = a.shape;
  const int lane = thread_in_block() % kWarp;
  const Place at = place_of(shape, 1);
  const int tiles = (at.rows() + kMmaRows - 1) / kMmaRows;
  if (tiles <= 0) return;

  GPU_SHARED_DYNAMIC(bf16, memory);
  GPU_SHARED(int, next, [1]);  // work not yet taken
  bf16* const keys = memory + 0;
  bf16* const values = keys + tiles * kMmaRows * (D + 8);
  const bf16* v = static_cast<const bf16*>(a.v);
  copy_rows<D>(
      values, tiles * kMmaRows,
      [&](int r) { return r < at.rows() ? v + (at.begin + r) * a.v_stride + at.g * D : nullptr; }, v, thread_in_block(),
      threads_in_block());
  cp_async_commit();
  load_parts<D>(keys, tiles * kMmaRows, a, at);
  if (thread_in_block() == 0) next[0] = 0;
  const Visible visible = visible_keys(shape, at.begin, at.end);
  cp_async_wait<0>();
  __syncthreads();

  for (;;) {
    int unit = lane == 0 ? atomicAdd(&next[0], 1) : 0;
    unit = __shfl_sync(kFullMask, unit, 0);
    if (unit >= tiles * at.n) break;
    const int tile = tiles - 1 - unit / at.n, head = at.g * at.n + unit % at.n;
    const int first = at.begin + tile * kMmaRows + lane / 4;  // and 8 further
    const auto part = [&](int row) {
      const int from = min(row, at.end - 1);
      RowPart<D> part(static_cast<const bf16*>(a.q) + from * a.q_stride + head * D, row < at.end, lane % 4);
      part.turn(angles_of(shape, from, at.begin), lane % 4);
      return part;
    };
    WholeRow rows[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first + 8 * half;
      rows[half] = {shape.causal ? min(row + 1, at.end) : at.end, visible.keyless(shape, row, at.end), -INFINITY, 0};
    }
    const RowPart<D> upper = part(first), lower = part(first + 8);
    float o[D / 8][4] = {};
    const int seen = (shape.causal ? tile + 1 : tiles) * kMmaRows;  // keys that these rows see, and some more
    int key = 0;
    do {
      const int pairs = min(seen - key, kKeys) / 16;
      const bf16* turn_keys = keys + key * (D + 8);
      WholeScores<D, kKeys> scores;
      multiply_parts(scores.s, upper, lower, turn_keys, pairs);
#pragma unroll
      for (int j = 0; j < kKeys / 16; ++j) {  // without a mask only the last keys that a row sees are in question
        if (j >= pairs || (!shape.key_mask && key + 16 * (j + 1) != seen)) continue;
        const int row = at.begin + key + 16 * j;
        scores.hide(j, rows, visible_bits(shape, row, at.end), row);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float shrink = scores.soften(rows[half], half, pairs, shape.scale * kLog2e);
        if (!kOneTurn)
          for (int j = 0; j < D / 8; ++j) o[j][2 * half] *= shrink, o[j][2 * half + 1] *= shrink;
      }
      scores.add_values(o, turn_keys + tiles * kMmaRows * (D + 8), pairs);
      key += kKeys;
    } while (!kOneTurn && key < seen);

#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first + 8 * half;
      const float sum = row_sum(rows[half].sum);
      if (a.lse && row < at.end && lane % 4 == 0)
        a.lse[int64_t(row) * shape.H + head] = (rows[half].max + log2f(sum)) * kLn2;
      store_quad<D>(static_cast<bf16*>(a.o) + Query{row, head}.in(int64_t(shape.H) * D, D), o, half, 1 / sum,
                    row < at.end);
    }
  }
}

constexpr int64_t kWholeKeys = 256;  // at most

inline bool fits_one_block(const Attention& a) {
  return for_tensor_cores(a) && a.shape.D <= 64 && a.shape.longest <= kWholeKeys;
}

inline void launch_in_one_block(const Attention& a, Stream stream) {
  const AttentionShape& shape = a.shape;
  const int64_t tiles = ceil_div(shape.longest, kMmaRows);
  const auto start = [&]<int D, int kKeys, bool kOneTurn>() {
    const int64_t warps = std::min<int64_t>(kWholeForwardWarps<kOneTurn>, tiles * (shape.H / shape.G));
    const int64_t bytes = 2 * tiles * kMmaRows * (D + 8) * int64_t{sizeof(bf16)};
    launch("attention_whole", attention_whole_kernel<D, kKeys, kOneTurn>,
           {shape.S * shape.G, warps * kWarp, bytes, stream}, a);
  };
  const auto of_head_size = [&]<int D>() {
    if (shape.longest <= 128) return start.template operator()<D, 128, true>();
    start.template operator()<D, 80, false>();
  };
  if (shape.D == 32) return of_head_size.template operator()<32>();
  of_head_size.template operator()<64>();
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
