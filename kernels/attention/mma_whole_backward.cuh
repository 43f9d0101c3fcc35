// The gradient of attention of bf16 by tensor cores in one kernel, for segments of up to 256 rows and head sizes 32 and
// 64: each operand is read once, where the two kernels of mma_backward.cuh read q, k, v and do twice.
//
// A block owns a whole segment and key/value head, a warp 16 of its keys. k and v stay in shared memory, dk and dv in
// registers, while 32 queries at a time pass by. Each warp leaves its keys' ds in shared memory, where other warps
// take them up for dq: so no sum crosses warps, and every sum has a fixed order. Bound by memory up to 128 rows.
#pragma once
#include "kernels/attention/mma_backward.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

constexpr int kWholeWarps = 16;  // at most
constexpr int kWholeItems = 32;  // queries that pass by together
constexpr int kWholeStep = kWholeItems + 8;

// Where the matrices lie in shared memory: q, do [32, D + 8], k, v [16 warps, D + 8], ds [16 warps, 32 + 8]. Those
// whose place does not depend on the number of warps come first: their addresses need no registers.
template <int D>
struct WholePlaces {
  bf16 *q, *d_o, *k, *v, *ds;

  static constexpr int64_t elements(int64_t warps) {
    return 2 * (warps * kMmaRows + kWholeItems) * (D + 8) + warps * kMmaRows * kWholeStep;
  }
  __device__ WholePlaces(bf16* memory, int warps)
      : q(memory),
        d_o(q + kWholeItems * (D + 8)),
        k(d_o + kWholeItems * (D + 8)),
        v(k + warps * kMmaRows * (D + 8)),
        ds(v + warps * kMmaRows * (D + 8)) {}
};

// Items first ... first + count - 1 into shared memory, zeros after them; their deltas and log-sum-exps in powers of
// two.
template <int D>
__device__ void load_items(const MmaSource& from, const WholePlaces<D>& to, int first, int count, float* delta,
                           float* lse) {
  constexpr int kParts = D / 8;  // lanes a row
  const int thread = thread_in_block(), threads = threads_in_block();
  for (int i = thread; i < kWholeItems * kParts; i += threads) {
    const int r = i / kParts, d = i % kParts * 8;
    Vec<bf16, 8> slope{}, out{};
    if (r < count) slope = ld16(from.d_o(first + r) + d), out = ld16(from.o(first + r) + d);
    st16(to.d_o + r * (D + 8) + d, slope);
    float sum = 0;
    for (int e = 0; e < 8; ++e) sum += static_cast<float>(slope[e]) * static_cast<float>(out[e]);
    for (int lanes = 1; lanes < kParts; lanes *= 2) sum += shfl_xor(sum, lanes);
    if (d == 0) delta[r] = sum, lse[r] = r < count ? from.a.lse[from.head(first + r)] * kLog2e : INFINITY;
  }
  load_rotated<D>(
      to.q, kWholeItems, [&](int r) { return r < count ? from.q(first + r) : nullptr; },
      [&](int r) { return from.query_angles(first + r); }, thread, threads);
}

// dq of 16 items from row `item` of the tile on, columns d ... d + 7 and their partners half a head further, which a
// rotation turns together: over `keys` keys. The result, turned back, replaces q.
template <int D>
__device__ void make_dq(const WholePlaces<D>& at, int item, int d, int keys, const Angles (&angles)[2]) {
  const int lane = thread_in_block() % kWarp;
  float dq[2][4] = {};
  for (int key = 0; key < keys; key += 16) {
    uint32_t s[4], k[4];
    ldmatrix_x4_trans(s, at.ds + (key + lane / 16 * 8 + lane % 8) * kWholeStep + item + lane / 8 % 2 * 8);
    ldmatrix_x4_trans(k, at.k + (key + lane / 8 % 2 * 8 + lane % 8) * (D + 8) + d + lane / 16 * (D / 2));
    const uint32_t low[2] = {k[0], k[1]}, high[2] = {k[2], k[3]};
    mma_m16n8k16(dq[0], s, low);
    mma_m16n8k16(dq[1], s, high);
  }
  const int column = d + lane % 4 * 2;
  for (int half = 0; half < 2; ++half) {
    float low[2] = {dq[0][2 * half], dq[0][2 * half + 1]}, high[2] = {dq[1][2 * half], dq[1][2 * half + 1]};
    if (angles[half].cos) turn_back(low, high, angles[half], column);
    bf16* to = at.q + (item + lane / 4 + 8 * half) * (D + 8) + column;
    *reinterpret_cast<uint32_t*>(to) = pack_bf16(low[0], low[1]);
    *reinterpret_cast<uint32_t*>(to + D / 2) = pack_bf16(high[0], high[1]);
  }
}

template <int D>
__global__ void __launch_bounds__(kWholeWarps* kWarp) attention_backward_whole_kernel(const AttentionBackward a) {
  constexpr int kStep = D + 8, kColumns = 16 / 8;
  const AttentionShape& shape = a.shape;
  const int thread = thread_in_block(), threads = threads_in_block(), lane = thread % kWarp, warp = thread / kWarp;
  const Place at = place_of(shape, 1);
  const MmaSource from{a, at};
  if (at.rows() <= 0) return;

  GPU_SHARED_DYNAMIC(bf16, memory);
  GPU_SHARED(float, lse, [kWholeItems]);  // of the tile's items
  GPU_SHARED(float, delta, [kWholeItems]);
  const WholePlaces<D> place(memory + 0, threads / kWarp);
  from.load_keys<D>(place.k, place.v, at.begin, at.rows(), threads / kWarp * kMmaRows, thread, threads);

  const int own = warp * kMmaRows, own_row = at.begin + own;
  const Visible visible = visible_keys(shape, at.begin, at.end);
  const int mine = own_row + lane / 4;  // and 8 further
  unsigned open = 0;                    // bit `half`: the mask leaves the key visible
  for (int half = 0; half < 2; ++half) {
    const int key = mine + 8 * half;
    if (key < at.end && (!shape.key_mask || shape.key_mask[key])) open |= 1u << half;
  }
  float dk[D / 8][4] = {}, dv[D / 8][4] = {};
  cp_async_wait<0>();

  for (int item = 0; item < at.items(); item += kWholeItems) {
    const int count = min(kWholeItems, at.items() - item), last_row = query_of(at, item + count - 1).row;
    __syncthreads();  // the last tile's dq has been read
    load_items<D>(from, place, item, count, &delta[0], &lse[0]);
    __syncthreads();

    // 16 items at a time: registers hold no more.
    const bool meets = own_row < at.end && (!shape.causal || own_row <= last_row);  // the whole warp
#pragma unroll 1
    for (int first = 0; meets && first < kWholeItems; first += 16) {
      const bf16 *q = place.q + first * kStep, *d_o = place.d_o + first * kStep;
      float p[kColumns][4] = {}, ds[kColumns][4] = {};
      multiply_rows<D>(p, place.k + own * kStep, q);
      multiply_rows<D>(ds, place.v + own * kStep, d_o);
#pragma unroll
      for (int j = 0; j < kColumns; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int column = first + 8 * j + lane % 4 * 2 + e, row = query_of(at, item + column).row;
          const bool keyless = visible.keyless(shape, row, at.end);
          const float scale = keyless ? 0 : shape.scale * kLog2e;
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            float &x = p[j][2 * half + e], &y = ds[j][2 * half + e];
            const int key = mine + 8 * half;
            const bool seen = (!shape.causal || row >= key) && (keyless ? key < at.end : open >> half & 1);
            x = seen ? ex2(x * scale - lse[column]) : 0;
            y = shape.scale * x * (y - delta[column]);
          }
        }
      add_rows<D>(dv, p, d_o);
      add_rows<D>(dk, ds, q);
      for (int half = 0; half < 2; ++half)
        for (int j = 0; j < kColumns; ++j)
          *reinterpret_cast<uint32_t*>(place.ds + (own + lane / 4 + 8 * half) * kWholeStep + first + 8 * j +
                                       lane % 4 * 2) = pack_bf16(ds[j][2 * half], ds[j][2 * half + 1]);
    }
    __syncthreads();

    const int keys = shape.causal ? last_row + 1 - at.begin : at.rows();
    for (int unit = warp; unit < kWholeItems / 16 * (D / 16); unit += threads / kWarp) {
      const int first = unit % (kWholeItems / 16) * 16;
      Angles angles[2];
      for (int half = 0; half < 2; ++half)
        angles[half] = from.query_angles(min(item + first + lane / 4 + 8 * half, at.items() - 1));
      make_dq<D>(place, first, unit / (kWholeItems / 16) * 8, keys, angles);
    }
    __syncthreads();
    for (int i = thread; i < count * (D / 8); i += threads) {
      const int r = i / (D / 8), d = i % (D / 8) * 8;
      st16(static_cast<bf16*>(a.dq) + query_of(at, item + r).in(a.q_stride, D) + d, ld16(place.q + r * kStep + d));
    }
  }

  const int my_rows = max(0, min(kMmaRows, at.end - own_row));
  for (int half = 0; half < 2; ++half) turn_back<D>(dk, half, from.key_angles(min(mine + 8 * half, at.end - 1)));
  store_rows<D>(place.k + own * kStep, dk, my_rows,
                [&](int r) { return static_cast<bf16*>(a.dk) + (own_row + r) * a.k_stride + at.g * D; });
  store_rows<D>(place.v + own * kStep, dv, my_rows,
                [&](int r) { return static_cast<bf16*>(a.dv) + (own_row + r) * a.v_stride + at.g * D; });
}

inline bool fits_one_block(const AttentionBackward& a) {
  return for_tensor_cores(a) && a.shape.D <= 64 && a.shape.longest <= kWholeWarps * kMmaRows;
}

inline void launch_in_one_block(const AttentionBackward& a, Stream stream) {
  const AttentionShape& shape = a.shape;
  const int64_t warps = ceil_div(shape.longest, kMmaRows);
  const auto start = [&]<int D>(std::integral_constant<int, D>) {
    const int64_t bytes = WholePlaces<D>::elements(warps) * int64_t{sizeof(bf16)};
    launch("attention_backward_whole", attention_backward_whole_kernel<D>,
           {shape.S * shape.G, warps * kWarp, bytes, stream}, a);
  };
  if (shape.D == 32) return start(std::integral_constant<int, 32>{});
  start(std::integral_constant<int, 64>{});
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
