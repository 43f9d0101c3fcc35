// Attention of bf16 by wgmma, for Hopper GPUs: head size 64, segments of up to 208 rows.
//
// As in mma_whole_forward.cuh a block owns a whole segment and key/value head, keys rotated once. Its four warps take
// 64 items (rows.cuh) together: q goes straight from global memory into registers as one operand of a product, whose
// other one, keys or values, the tensor cores read from shared memory by themselves. An instruction makes 64 x 64 or
// 64 x 208 scores, where mma.sync takes one for 16 x 8 and loads half of its operands by others: what is left to issue
// is the softmax. All scores that a row meets are in registers at once, so it has its maximum before its first weight.
// Several blocks fit a multiprocessor: one multiplies while another softens. Bound by memory.
#pragma once
#include "kernels/attention/mma_forward.cuh"
#include "kernels/attention/mma_parts.cuh"
#include "kernels/attention/whole_scores.cuh"
#include "kernels/hopper.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

constexpr int kWgmmaItems = 64;  // that four warps take together
constexpr int kWgmmaThreads = 4 * kWarp;
constexpr int kWgmmaD = kBoxColumns;  // a row is a row of the swizzle's pattern
constexpr int kWgmmaPatternBytes = 8 * kWgmmaD * int{sizeof(bf16)};
constexpr int kWgmmaKeys = 208;  // at most

// Keys and values of a segment into shared memory, in the order of a RowPart, swizzled; zeros up to kRows. The loads of
// several rows are under way together.
template <int kRows>
__device__ void load_swizzled_segment(bf16* keys, bf16* values, const Attention& a, const Place& at) {
  constexpr int kStep = kWgmmaThreads / 4, kTogether = std::min(4, kRows / kStep);
  const int t = thread_in_block() % 4;
  for (int first = thread_in_block() / 4; first < kRows; first += kTogether * kStep) {
    RowPart<kWgmmaD> k[kTogether], v[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const int r = first + i * kStep, row = at.begin + min(r, at.rows() - 1);
      k[i] = {static_cast<const bf16*>(a.k) + row * a.k_stride + at.g * kWgmmaD, r < at.rows(), t};
      v[i] = {static_cast<const bf16*>(a.v) + row * a.v_stride + at.g * kWgmmaD, r < at.rows(), t};
    }
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const int r = first + i * kStep;
      if (r >= kRows) continue;
      k[i].turn(angles_of(a.shape, at.begin + min(r, at.rows() - 1), at.begin), t);
      k[i].share(keys + r * kWgmmaD, t, r % 8), v[i].share(values + r * kWgmmaD, t, r % 8);
    }
  }
}

// A block's items as rows and heads, by a product instead of a division: exact where item * n < 2^31.
struct WgmmaItems {
  Place at;
  unsigned inverse;  // 2^31 / n, rounded up

  explicit __device__ WgmmaItems(const Place& at) : at(at), inverse(((1u << 31) - 1) / unsigned(at.n) + 1) {}

  __device__ int count() const { return at.items(); }
  __device__ Query query(int item) const {
    const int row = static_cast<int>(uint64_t{inverse} * unsigned(item) >> 31);
    return {at.begin + row, at.g * at.n + item - row * at.n};
  }
};

// One of the two items of a lane among the 64 of a tile: where there are no more, the segment's last one once more.
struct WgmmaQuery {
  Query at;
  bool there;

  __device__ WgmmaQuery(const WgmmaItems& items, int tile, int half) {
    const int item = tile * kWgmmaItems + thread_in_block() / kWarp * 16 + thread_in_block() % kWarp / 4 + 8 * half;
    there = item < items.count();
    at = items.query(min(item, items.count() - 1));
  }
  // Not yet turned.
  __device__ RowPart<kWgmmaD> part(const Attention& a) const {
    return {static_cast<const bf16*>(a.q) + at.in(a.q_stride, kWgmmaD), true, thread_in_block() % 4};
  }
};

// s[64, kKeys] = q[64, D] keys[kKeys, D]^T
template <int kKeys>
__device__ void multiply_queries(float (&s)[kKeys / 8][4], const RowPart<kWgmmaD> (&q)[2], uint32_t keys) {
  constexpr int kAtOnce = kKeys % 64 == 0 ? 64 : kKeys;
  wgmma_fence();
#pragma unroll
  for (int c = 0; c < kWgmmaD / 16; ++c) {
    const uint32_t a[4] = {q[0].word[2 * c], q[1].word[2 * c], q[0].word[2 * c + 1], q[1].word[2 * c + 1]};
#pragma unroll
    for (int key = 0; key < kKeys; key += kAtOnce)
      wgmma_m64k16<false>(c > 0, reinterpret_cast<float(&)[kAtOnce / 8][4]>(s[key / 8]), a,
                          matrix_descriptor(keys + static_cast<uint32_t>((key * kWgmmaD + 16 * c) * int{sizeof(bf16)}),
                                            0, kWgmmaPatternBytes));
  }
  wgmma_commit();
  wgmma_wait<0>();
}

// o[64, D] = w[64, kKeys] values[kKeys, D], w rounded to bf16.
template <int kKeys>
__device__ void multiply_weights(float (&o)[kWgmmaD / 8][4], const float (&w)[kKeys / 8][4], uint32_t values) {
  uint32_t a[kKeys / 16][4];
#pragma unroll
  for (int k = 0; k < kKeys / 16; ++k)
#pragma unroll
    for (int i = 0; i < 4; ++i) a[k][i] = pack_bf16(w[2 * k + i / 2][i % 2 * 2], w[2 * k + i / 2][i % 2 * 2 + 1]);
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < kKeys / 16; ++k)
    wgmma_m64k16<true>(
        k > 0, o, a[k],
        matrix_descriptor(values + static_cast<uint32_t>(k * 2 * kWgmmaPatternBytes), 0, kWgmmaPatternBytes));
  wgmma_commit();
  wgmma_wait<0>();
}

template <int kMostKeys>
__global__ void __launch_bounds__(kWgmmaThreads, kMostKeys <= 128 ? 4 : 3) attention_wgmma_kernel(const Attention a) {
  const AttentionShape& shape = a.shape;
  const int lane = thread_in_block() % kWarp;
  const Place at = place_of(shape, 1);
  if (at.rows() <= 0) return;

  GPU_SHARED_DYNAMIC(bf16, memory);
  const int past = static_cast<int>(shared_address(memory + 0)) % kWgmmaPatternBytes;
  bf16* const keys = memory + (kWgmmaPatternBytes - past) % kWgmmaPatternBytes / int{sizeof(bf16)};
  bf16* const values = keys + kMostKeys * kWgmmaD;
  const WgmmaItems items(at);
  int tile = (items.count() - 1) / kWgmmaItems;  // the longest work first
  RowPart<kWgmmaD> q[2];
  const auto load_queries = [&](int tile) {
#pragma unroll
    for (int half = 0; half < 2; ++half) q[half] = WgmmaQuery(items, tile, half).part(a);
  };
  load_queries(tile);
  load_swizzled_segment<kMostKeys>(keys, values, a, at);
  fence_async_proxy();
  const Visible visible = visible_keys(shape, at.begin, at.end);
  unsigned open = 0;  // by the mask: keys 32 lane ... 32 lane + 31
  for (int i = 0; shape.key_mask && i < ceil_div(kMostKeys, kWarp); ++i)
    if (const unsigned bits = visible_bits(shape, at.begin + i * kWarp, at.end); lane == i) open = bits;
  __syncthreads();

  const auto sees = [&](int row) { return shape.causal ? min(row + 1, at.end) - at.begin : at.rows(); };
  for (; tile >= 0; --tile) {
    WholeRow rows[2];
    int ends[2];  // of what a row sees, from the segment's first key on
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = WgmmaQuery(items, tile, half).at.row;
      q[half].turn(angles_of(shape, row, at.begin), lane % 4);
      rows[half] = {visible.keyless(shape, row, at.end), -INFINITY, 0};
      ends[half] = sees(row);
    }
    const bool any = __any_sync(kFullMask, WgmmaQuery(items, tile, 0).there);
    const int all_see = __shfl_sync(kFullMask, ends[0], 0);
    const int seen = sees(items.query(min((tile + 1) * kWgmmaItems, items.count()) - 1).row);  // by any of these rows
    float o[kWgmmaD / 8][4];
    const auto meet = [&]<int kKeys>() {
      WholeScores<kKeys> scores;
      multiply_queries<kKeys>(scores.s, q, shared_address(keys));
      if (any) {  // else nobody asks for what comes of them
        if (shape.key_mask) scores.hide(rows, [&](int i) { return __shfl_sync(kFullMask, open, i / 2) >> i % 2 * 16; });
        scores.hide(ends, all_see);
#pragma unroll
        for (int half = 0; half < 2; ++half) scores.soften(rows[half], half, shape.scale * kLog2e);
      }
      if (tile > 0) load_queries(tile - 1);
      multiply_weights<kKeys>(o, scores.s, shared_address(values));
    };
    if (kMostKeys == 128 && seen <= 64)
      meet.template operator()<64>();
    else
      meet.template operator()<kMostKeys>();

#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = row_sum(rows[half].sum), factor = 1 / sum;
#pragma unroll
      for (int j = 0; j < kWgmmaD / 8; ++j) o[j][2 * half] *= factor, o[j][2 * half + 1] *= factor;
      const WgmmaQuery mine(items, tile, half);
      if (!mine.there) continue;
      const auto [row, head] = mine.at;
      if (a.lse && lane % 4 == 0) a.lse[int64_t(row) * shape.H + head] = (rows[half].max + log2f(sum)) * kLn2;
      store_part<kWgmmaD>(static_cast<bf16*>(a.o) + mine.at.in(int64_t(shape.H) * kWgmmaD, kWgmmaD), o, half,
                          {nullptr, nullptr});
    }
  }
}

static_assert(kWgmmaKeys == 208);
constexpr const char* kWgmmaDoes =
    "bf16 heads of size 64, rows at 16-byte addresses, segments of up to 208 rows, on sm_90a";
inline bool fits_wgmma(const Attention& a) {
  return for_tensor_cores(a) && a.shape.D == kWgmmaD && a.shape.longest <= kWgmmaKeys && hopper();
}

inline void launch_wgmma(const Attention& a, Stream stream) {
  const auto start = [&]<int kKeys>() {
    const int64_t bytes = 2 * kKeys * kWgmmaD * int64_t{sizeof(bf16)} + kWgmmaPatternBytes;
    launch("attention_wgmma", attention_wgmma_kernel<kKeys>, {a.shape.S * a.shape.G, kWgmmaThreads, bytes, stream}, a);
  };
  if (a.shape.longest <= 64) return start.template operator()<64>();
  if (a.shape.longest <= 128) return start.template operator()<128>();
  start.template operator()<kWgmmaKeys>();
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
