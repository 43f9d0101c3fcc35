// Attention of bf16 by tensor cores for segments of up to 256 rows and head sizes 32 and 64: what training meets.
//
// A block owns a whole segment and key/value head: its keys are rotated once, and stay in shared memory with the
// values. A warp takes 16 rows of one query head at a time, the longest work first, straight from global memory into
// registers, and meets kKeys keys in a turn, whose scores (kKeys / 2 a lane) are there at once; the softmax runs along.
// A turn has no branch for keys that are not there or not seen, which are zeros or hidden: so its many products
// overlap, where few warps fit a multiprocessor. Bound by memory up to about 128 rows, above by issuing instructions.
#pragma once
#include "kernels/attention/mma_forward.cuh"
#include "kernels/attention/mma_parts.cuh"
#include "kernels/attention/whole_scores.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

// Keys and values of a segment into shared memory, in the order of a RowPart; zeros up to `rows`.
template <int D>
__device__ void load_segment(bf16* keys, bf16* values, int rows, const Attention& a, const Place& at) {
  for (int i = thread_in_block(); i < 4 * rows; i += threads_in_block()) {
    const int r = i / 4, t = i % 4, row = at.begin + min(r, at.rows() - 1);
    const bool there = r < at.rows();
    RowPart<D> k(static_cast<const bf16*>(a.k) + row * a.k_stride + at.g * D, there, t);
    const RowPart<D> v(static_cast<const bf16*>(a.v) + row * a.v_stride + at.g * D, there, t);
    k.turn(angles_of(a.shape, row, at.begin), t);
    k.share(keys + r * (D + 8), t), v.share(values + r * (D + 8), t);
  }
}

constexpr int kWholeForwardWarps = 4;  // of a block, at most

template <int D, int kKeys>
__global__ void __launch_bounds__(kWholeForwardWarps* kWarp, 3) attention_whole_kernel(const Attention a) {
  const AttentionShape& shape = a.shape;
  const int lane = thread_in_block() % kWarp;
  const Place at = place_of(shape, 1);
  const int tiles = (at.rows() + kMmaRows - 1) / kMmaRows, turns = (at.rows() + kKeys - 1) / kKeys;
  if (tiles <= 0) return;

  GPU_SHARED_DYNAMIC(bf16, memory);
  GPU_SHARED(int, next, [1]);  // work not yet taken
  bf16* const keys = memory + 0;
  bf16* const values = keys + turns * kKeys * (D + 8);
  load_segment<D>(keys, values, turns * kKeys, a, at);
  if (thread_in_block() == 0) next[0] = 0;
  const Visible visible = visible_keys(shape, at.begin, at.end);
  __syncthreads();

  for (;;) {
    const int unit = take_unit(&next[0]);
    if (unit >= tiles * at.n) break;
    const int tile = tiles - 1 - unit / at.n, head = at.g * at.n + unit % at.n;
    const int first = at.begin + tile * kMmaRows + lane / 4;  // and 8 further
    const auto part = [&](int row) {
      const int from = min(row, at.end - 1);
      RowPart<D> part(static_cast<const bf16*>(a.q) + from * a.q_stride + head * D, row < at.end, lane % 4);
      part.turn(angles_of(shape, from, at.begin), lane % 4);
      return part;
    };
    const RowPart<D> upper = part(first), lower = part(first + 8);
    WholeRow rows[2];
    int ends[2];  // of what a row sees, from the segment's first key on
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first + 8 * half;
      rows[half] = {visible.keyless(shape, row, at.end), -INFINITY, 0};
      ends[half] = shape.causal ? min(row + 1 - at.begin, at.rows()) : at.rows();
    }
    float o[D / 8][4] = {};
    const int seen = shape.causal ? min((tile + 1) * kMmaRows, at.rows()) : at.rows();  // by any of these rows
    for (int key = 0; key < seen; key += kKeys) {
      WholeScores<kKeys> scores{};
      multiply_parts(scores.s, upper, lower, keys + key * (D + 8));
      if (shape.key_mask)
        scores.hide(rows, [&](int i) { return visible_bits(shape, at.begin + key + 16 * i, at.end); });
      if (key + kKeys > seen - kMmaRows) scores.hide({ends[0] - key, ends[1] - key});  // else all see all of them
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float shrink = scores.soften(rows[half], half, shape.scale * kLog2e);
#pragma unroll
        for (int j = 0; j < D / 8; ++j) o[j][2 * half] *= shrink, o[j][2 * half + 1] *= shrink;
      }
      add_rows<D>(o, scores.s, values + key * (D + 8));
    }

#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first + 8 * half;
      const float sum = row_sum(rows[half].sum), factor = 1 / sum;
#pragma unroll
      for (int j = 0; j < D / 8; ++j) o[j][2 * half] *= factor, o[j][2 * half + 1] *= factor;
      if (row >= at.end) continue;
      if (a.lse && lane % 4 == 0) a.lse[int64_t(row) * shape.H + head] = (rows[half].max + log2f(sum)) * kLn2;
      store_part<D>(static_cast<bf16*>(a.o) + Query{row, head}.in(int64_t(shape.H) * D, D), o, half,
                    {nullptr, nullptr});
    }
  }
}

constexpr int64_t kWholeKeys = 256;  // at most

static_assert(kWholeKeys == 256);
constexpr const char* kWholeDoes =
    "bf16 heads of size 32 and 64, rows at 16-byte addresses, segments of up to 256 rows";
inline bool fits_one_block(const Attention& a) {
  return for_tensor_cores(a) && a.shape.D <= 64 && a.shape.longest <= kWholeKeys;
}

inline void launch_in_one_block(const Attention& a, Stream stream) {
  const AttentionShape& shape = a.shape;
  const int64_t tiles = ceil_div(shape.longest, kMmaRows);
  const auto start = [&]<int D, int kKeys>() {
    const int64_t warps = std::min<int64_t>(kWholeForwardWarps, tiles * (shape.H / shape.G));
    const int64_t bytes = 2 * ceil_div(shape.longest, kKeys) * kKeys * (D + 8) * int64_t{sizeof(bf16)};
    launch("attention_whole", attention_whole_kernel<D, kKeys>, {shape.S * shape.G, warps * kWarp, bytes, stream}, a);
  };
  const auto of_head_size = [&]<int D>() {
    if (shape.longest <= 128) return start.template operator()<D, 64>();
    start.template operator()<D, 112>();
  };
  if (shape.D == 32) return of_head_size.template operator()<32>();
  of_head_size.template operator()<64>();
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
