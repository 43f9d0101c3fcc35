// Attention of bf16 by tensor cores: head sizes 32, 64 and 128, rows aligned to 16 bytes, causal or not.
//
// A block owns 16 items a warp (rows.cuh) and meets tiles of 64 keys, which are turned on their way into shared memory
// while values arrive by cp.async. A warp keeps scores and o in registers; the softmax runs along, in
// powers of two. Probabilities are rounded to bf16 before they are divided by their sum. Bound by memory for segments
// of up to about 256 rows: the tiles of one segment are read from L2 by its other blocks.
#pragma once
#include "kernels/attention/mma_rows.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

// What one row of a warp's 16 has met so far.
struct MmaRow {
  int end;         // it sees rows below
  bool keyless;    // though the mask hides them all
  float max, sum;  // of powers of two; sum: this lane's part
};

// Scores s[.][2 half], s[.][2 half + 1] of a row become weights. Returns what its earlier sums then count for.
__device__ inline float soften(MmaRow& row, float (&s)[kMmaTile / 8][4], int half, const unsigned (&visible)[2],
                               int key, float scale) {
  const int column = thread_in_block() % 4 * 2;
  if (row.keyless) scale = 0;
  float largest = row.max;
  unsigned seen[2];
  for (int w = 0; w < 2; ++w) seen[w] = (row.keyless ? kFullMask : visible[w]) & bits_below(row.end, key + 32 * w);
#pragma unroll
  for (int j = 0; j < kMmaTile / 8; ++j)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float& x = s[j][2 * half + e];
      x = seen[j / 4] >> (j % 4 * 8 + column + e) & 1 ? x * scale : -INFINITY;
      largest = fmaxf(largest, x);
    }
  largest = row_max(largest);
  const float origin = largest == -INFINITY ? 0 : largest;  // nothing seen yet
  const float shrink = ex2(row.max - origin);
  row.max = largest, row.sum *= shrink;
#pragma unroll
  for (int j = 0; j < kMmaTile / 8; ++j)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float& x = s[j][2 * half + e];
      x = ex2(x - origin);
      row.sum += x;
    }
  return shrink;
}

template <int D>
__global__ void __launch_bounds__(kMmaWarps* kWarp, D <= 64 ? 3 : 2)
    attention_mma_kernel(const Attention a, int tiles) {
  constexpr int kStep = D + 8;
  const AttentionShape& shape = a.shape;
  const int thread = thread_in_block(), threads = threads_in_block(), lane = thread % kWarp, warp = thread / kWarp;
  const Place at = place_of(shape, tiles);
  const int block_items = threads / kWarp * kMmaRows, first = at.tile * block_items;
  const int items = min(block_items, at.items() - first), my_items = min(kMmaRows, items - warp * kMmaRows);
  if (items <= 0) return;

  GPU_SHARED_DYNAMIC(bf16, memory);
  bf16* keys = memory + 0;
  bf16* values = keys + kMmaTile * kStep;
  bf16* own = values + kMmaTile * kStep + warp * kMmaRows * kStep;
  const int own_item = first + warp * kMmaRows;
  const auto angles = [&](int row) { return angles_of(shape, row, at.begin); };
  load_rotated<D>(
      own, kMmaRows,
      [&](int r) {
        return r < my_items ? static_cast<const bf16*>(a.q) + query_of(at, own_item + r).in(a.q_stride, D) : nullptr;
      },
      [&](int r) { return angles(query_of(at, own_item + r).row); }, lane, kWarp);
  __syncwarp();

  const Visible visible = visible_keys(shape, at.begin, at.end);
  const auto end_of = [&](int row) { return shape.causal ? min(row + 1, at.end) : at.end; };
  MmaRow rows[2];
  for (int half = 0; half < 2; ++half) {
    const int row = query_of(at, own_item + lane / 4 + 8 * half).row;
    rows[half] = {end_of(row), visible.keyless(shape, row, at.end), -INFINITY, 0};
  }
  const int end = end_of(query_of(at, first + items - 1).row);
  const int my_end = my_items > 0 ? end_of(query_of(at, own_item + my_items - 1).row) : 0;
  float o[D / 8][4] = {};

  for (int key = at.begin; key < end; key += kMmaTile) {
    const int count = min(kMmaTile, end - key);
    __syncthreads();  // the last tile has been read
    const bf16* v = static_cast<const bf16*>(a.v);
    copy_rows<D>(
        values, kMmaTile, [&](int r) { return r < count ? v + (key + r) * a.v_stride + at.g * D : nullptr; }, v, thread,
        threads);
    cp_async_commit();
    load_rotated<D>(
        keys, kMmaTile,
        [&](int r) { return r < count ? static_cast<const bf16*>(a.k) + (key + r) * a.k_stride + at.g * D : nullptr; },
        [&](int r) { return angles(key + r); }, thread, threads);
    const unsigned bits[2] = {visible_bits(shape, key, at.end), visible_bits(shape, key + 32, at.end)};
    cp_async_wait<0>();
    __syncthreads();
    if (my_end <= key) continue;  // the whole warp

    float s[kMmaTile / 8][4] = {};
    multiply_rows<D>(s, own, keys);
    for (int half = 0; half < 2; ++half) {
      const float shrink = soften(rows[half], s, half, bits, key, shape.scale * kLog2e);
      for (int j = 0; j < D / 8; ++j) o[j][2 * half] *= shrink, o[j][2 * half + 1] *= shrink;
    }
    add_rows<D>(o, s, values);
  }

  for (int half = 0; half < 2; ++half) {
    const int r = lane / 4 + 8 * half;
    const float sum = row_sum(rows[half].sum);
    for (int j = 0; j < D / 8; ++j) o[j][2 * half] /= sum, o[j][2 * half + 1] /= sum;
    const Query query = query_of(at, own_item + r);
    if (a.lse && r < my_items && lane % 4 == 0)
      a.lse[int64_t(query.row) * shape.H + query.head] = (rows[half].max + log2f(sum)) * kLn2;
  }
  store_rows<D>(own, o, my_items, [&](int r) {
    return static_cast<bf16*>(a.o) + query_of(at, own_item + r).in(int64_t(shape.H) * D, D);
  });
}

inline bool for_tensor_cores(const Attention& a) {
  return for_tensor_cores(a.shape) && aligned_rows(a.q, a.q_stride) && aligned_rows(a.k, a.k_stride) &&
         aligned_rows(a.v, a.v_stride) && aligned_rows(a.o, 0);
}

inline void launch_on_tensor_cores(const Attention& a, Stream stream) {
  with_head_size(a.shape.D, [&]<int D>(std::integral_constant<int, D>) {
    launch_mma<D>("attention_mma", attention_mma_kernel<D>, a.shape, a.shape.longest * (a.shape.H / a.shape.G), 1,
                  stream, a);
  });
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
