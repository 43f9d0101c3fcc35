// The gradient of attention of bf16 by tensor cores: head sizes 32, 64 and 128, rows aligned to 16 bytes.
//
// The two kernels of attention_backward.cu: a warp owns 16 queries or 16 keys and meets tiles of 64 keys or queries. q
// and k are turned on their way into shared memory, the other matrices arrive by cp.async. p and ds stay in registers
// and are rounded to bf16 where they enter a product.
#pragma once
#include "kernels/attention/mma_rows.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

// The rows that the two matrices of a block's own rows, or of a tile, come from.
struct MmaSource {
  const AttentionBackward& a;
  const Place& at;

  __device__ const bf16* q(int item) const {
    return static_cast<const bf16*>(a.q) + query_of(at, item).in(a.q_stride, a.shape.D);
  }
  __device__ const bf16* d_o(int item) const { return static_cast<const bf16*>(a.d_o) + out(item); }
  __device__ const bf16* o(int item) const { return static_cast<const bf16*>(a.o) + out(item); }
  __device__ const bf16* k(int row) const {
    return static_cast<const bf16*>(a.k) + row * a.k_stride + at.g * a.shape.D;
  }
  __device__ const bf16* v(int row) const {
    return static_cast<const bf16*>(a.v) + row * a.v_stride + at.g * a.shape.D;
  }
  __device__ int64_t out(int item) const { return query_of(at, item).in(int64_t(a.shape.H) * a.shape.D, a.shape.D); }
  __device__ int64_t head(int item) const { return query_of(at, item).in(a.shape.H, 1); }  // in lse and deltas
  __device__ Angles query_angles(int item) const { return angles_of(a.shape, query_of(at, item).row, at.begin); }
  __device__ Angles key_angles(int row) const { return angles_of(a.shape, row, at.begin); }

  // Items or rows first ... first + count - 1 into shared memory, and zeros up to `rows`. The copies are committed.
  template <int D>
  __device__ void load_queries(bf16* q_rows, bf16* d_o_rows, int first, int count, int rows, int thread,
                               int threads) const {
    copy_rows<D>(
        d_o_rows, rows, [&](int r) { return r < count ? d_o(first + r) : nullptr; }, static_cast<const bf16*>(a.d_o),
        thread, threads);
    cp_async_commit();
    load_rotated<D>(
        q_rows, rows, [&](int r) { return r < count ? q(first + r) : nullptr; },
        [&](int r) { return query_angles(first + r); }, thread, threads);
  }
  template <int D>
  __device__ void load_keys(bf16* k_rows, bf16* v_rows, int first, int count, int rows, int thread, int threads) const {
    copy_rows<D>(
        v_rows, rows, [&](int r) { return r < count ? v(first + r) : nullptr; }, static_cast<const bf16*>(a.v), thread,
        threads);
    cp_async_commit();
    load_rotated<D>(
        k_rows, rows, [&](int r) { return r < count ? k(first + r) : nullptr; },
        [&](int r) { return key_angles(first + r); }, thread, threads);
  }
};

// deltas of a warp's items, for itself in shared memory and for the second kernel.
template <int D>
__device__ void make_deltas(const MmaSource& from, const bf16* d_o_rows, int first, int items, float* own,
                            float* deltas) {
  constexpr int kParts = D / 8;  // lanes a row
  const int lane = thread_in_block() % kWarp;
  for (int i = lane; i < kMmaRows * kParts; i += kWarp) {
    const int r = i / kParts, d = i % kParts * 8;
    float sum = 0;
    if (r < items) {
      const Vec<bf16, 8> x = ld16(d_o_rows + r * (D + 8) + d), y = ld16(from.o(first + r) + d);
      for (int e = 0; e < 8; ++e) sum += static_cast<float>(x[e]) * static_cast<float>(y[e]);
    }
    for (int lanes = 1; lanes < kParts; lanes *= 2) sum += shfl_xor(sum, lanes);
    if (d == 0) own[r] = sum;
    if (d == 0 && r < items) deltas[from.head(first + r)] = sum;
  }
  __syncwarp();
}

// dq of a tile of items, and deltas [R, H].
template <int D>
__global__ void __launch_bounds__(kMmaWarps* kWarp, D <= 64 ? 3 : 2)
    attention_dq_mma_kernel(const AttentionBackward a, float* deltas, int tiles) {
  constexpr int kStep = D + 8;
  const AttentionShape& shape = a.shape;
  const int thread = thread_in_block(), threads = threads_in_block(), lane = thread % kWarp, warp = thread / kWarp;
  const Place at = place_of(shape, tiles);
  const MmaSource from{a, at};
  const int first = at.tile * threads / kWarp * kMmaRows, items = min(threads / kWarp * kMmaRows, at.items() - first);
  const int own_item = first + warp * kMmaRows, my_items = max(0, min(kMmaRows, items - warp * kMmaRows));
  if (items <= 0) return;

  GPU_SHARED_DYNAMIC(bf16, memory);
  GPU_SHARED(float, own_deltas, [kMmaWarps][kMmaRows]);
  bf16* keys = memory + 0;
  bf16* values = keys + kMmaTile * kStep;
  bf16* q = values + (kMmaTile + 2 * warp * kMmaRows) * kStep;
  bf16* d_o = q + kMmaRows * kStep;
  from.load_queries<D>(q, d_o, own_item, my_items, kMmaRows, lane, kWarp);
  cp_async_wait<0>();
  __syncwarp();
  make_deltas<D>(from, d_o, own_item, my_items, &own_deltas[warp][0], deltas);

  const Visible visible = visible_keys(shape, at.begin, at.end);
  const auto end_of = [&](int row) { return shape.causal ? min(row + 1, at.end) : at.end; };
  int my_ends[2];
  bool keyless[2];
  float lse[2], delta[2];
  for (int half = 0; half < 2; ++half) {
    const int r = lane / 4 + 8 * half, row = query_of(at, own_item + r).row;
    my_ends[half] = end_of(row), keyless[half] = visible.keyless(shape, row, at.end);
    lse[half] = r < my_items ? a.lse[from.head(own_item + r)] * kLog2e : 0;
    delta[half] = own_deltas[warp][r];
  }
  const int end = end_of(query_of(at, first + items - 1).row);
  const int my_end = my_items > 0 ? end_of(query_of(at, own_item + my_items - 1).row) : 0;
  float dq[D / 8][4] = {};

  for (int key = at.begin; key < end; key += kMmaTile) {
    __syncthreads();  // the last tile has been read
    from.load_keys<D>(keys, values, key, min(kMmaTile, end - key), kMmaTile, thread, threads);
    const unsigned bits[2] = {visible_bits(shape, key, at.end), visible_bits(shape, key + 32, at.end)};
    cp_async_wait<0>();
    __syncthreads();
    if (my_end <= key) continue;  // the whole warp

    float s[kMmaTile / 8][4] = {}, dp[kMmaTile / 8][4] = {};
    multiply_rows<D>(s, q, keys);
    multiply_rows<D>(dp, d_o, values);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float scale = keyless[half] ? 0 : shape.scale * kLog2e;
      unsigned seen[2];
      for (int w = 0; w < 2; ++w)
        seen[w] = (keyless[half] ? kFullMask : bits[w]) & bits_below(my_ends[half], key + 32 * w);
#pragma unroll
      for (int j = 0; j < kMmaTile / 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = s[j][2 * half + e];
          const float p = seen[j / 4] >> (j % 4 * 8 + lane % 4 * 2 + e) & 1 ? ex2(x * scale - lse[half]) : 0;
          x = shape.scale * p * (dp[j][2 * half + e] - delta[half]);
        }
    }
    add_rows<D>(dq, s, keys);
  }

  for (int half = 0; half < 2; ++half)
    turn_back<D>(dq, half, from.query_angles(min(own_item + lane / 4 + 8 * half, at.items() - 1)));
  store_rows<D>(q, dq, my_items,
                [&](int r) { return static_cast<bf16*>(a.dq) + query_of(at, own_item + r).in(a.q_stride, D); });
}

// dk and dv of a tile of keys.
template <int D>
__global__ void __launch_bounds__(kMmaWarps* kWarp, 2)
    attention_dkv_mma_kernel(const AttentionBackward a, const float* deltas, int tiles) {
  constexpr int kStep = D + 8, kTile = D <= 64 ? kMmaTile : kMmaTile / 2;  // registers hold no more
  const AttentionShape& shape = a.shape;
  const int thread = thread_in_block(), threads = threads_in_block(), lane = thread % kWarp, warp = thread / kWarp;
  const Place at = place_of(shape, tiles);
  const MmaSource from{a, at};
  const int block_rows = threads / kWarp * kMmaRows, first = at.begin + at.tile * block_rows;
  const int own_row = first + warp * kMmaRows, my_rows = max(0, min(kMmaRows, at.end - own_row));
  if (first >= at.end) return;

  GPU_SHARED_DYNAMIC(bf16, memory);
  GPU_SHARED(float, lse, [kTile]);  // of the tile's items
  GPU_SHARED(float, delta, [kTile]);
  GPU_SHARED(int, item_row, [kTile]);
  bf16* q = memory + 0;
  bf16* d_o = q + kTile * kStep;
  bf16* k = d_o + (kTile + 2 * warp * kMmaRows) * kStep;
  bf16* v = k + kMmaRows * kStep;
  from.load_keys<D>(k, v, own_row, my_rows, kMmaRows, lane, kWarp);

  const Visible visible = visible_keys(shape, at.begin, at.end);
  int mine[2];
  bool masked[2];
  for (int half = 0; half < 2; ++half) {
    mine[half] = own_row + lane / 4 + 8 * half;
    masked[half] = shape.key_mask && mine[half] < at.end && !shape.key_mask[mine[half]];
  }
  float dk[D / 8][4] = {}, dv[D / 8][4] = {};

  for (int item = shape.causal ? (first - at.begin) * at.n : 0; item < at.items(); item += kTile) {
    const int count = min(kTile, at.items() - item);
    __syncthreads();  // the last tile has been read
    from.load_queries<D>(q, d_o, item, count, kTile, thread, threads);
    for (int r = thread; r < kTile; r += threads) {
      lse[r] = r < count ? a.lse[from.head(item + r)] * kLog2e : INFINITY;  // whose p is 0
      delta[r] = r < count ? deltas[from.head(item + r)] : 0;
      item_row[r] = query_of(at, item + r).row;
    }
    cp_async_wait<0>();
    __syncthreads();
    if (shape.causal && item_row[count - 1] < own_row) continue;  // the whole warp

    float p[kTile / 8][4] = {}, ds[kTile / 8][4] = {};
    multiply_rows<D>(p, k, q);
    multiply_rows<D>(ds, v, d_o);
#pragma unroll
    for (int j = 0; j < kTile / 8; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int column = 8 * j + lane % 4 * 2 + e, row = item_row[column];
        const bool keyless = visible.keyless(shape, row, at.end);
        const float scale = keyless ? 0 : shape.scale * kLog2e;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float &x = p[j][2 * half + e], &y = ds[j][2 * half + e];
          const bool seen = (!shape.causal || row >= mine[half]) && (keyless || !masked[half]);
          x = seen ? ex2(x * scale - lse[column]) : 0;
          y = shape.scale * x * (y - delta[column]);
        }
      }
    add_rows<D>(dv, p, d_o);
    add_rows<D>(dk, ds, q);
  }

  for (int half = 0; half < 2; ++half) turn_back<D>(dk, half, from.key_angles(min(mine[half], at.end - 1)));
  store_rows<D>(k, dk, my_rows,
                [&](int r) { return static_cast<bf16*>(a.dk) + (own_row + r) * a.k_stride + at.g * D; });
  store_rows<D>(v, dv, my_rows,
                [&](int r) { return static_cast<bf16*>(a.dv) + (own_row + r) * a.v_stride + at.g * D; });
}

inline bool for_tensor_cores(const AttentionBackward& a) {
  const auto aligned = [](const void* x, const void* dx, int64_t stride) {
    return aligned_rows(x, stride) && aligned_rows(dx, stride);
  };
  return for_tensor_cores(a.shape) && aligned(a.q, a.dq, a.q_stride) && aligned(a.k, a.dk, a.k_stride) &&
         aligned(a.v, a.dv, a.v_stride) && aligned(a.o, a.d_o, 0);
}

inline void launch_on_tensor_cores(const AttentionBackward& a, float* deltas, Stream stream) {
  const AttentionShape& shape = a.shape;
  with_head_size(shape.D, [&]<int D>(std::integral_constant<int, D>) {
    launch_mma<D>("attention_dq_mma", attention_dq_mma_kernel<D>, shape, shape.longest * (shape.H / shape.G), 2, stream,
                  a, deltas);
    launch_mma<D>("attention_dkv_mma", attention_dkv_mma_kernel<D>, shape, shape.longest, 2, stream, a, deltas);
  });
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
