// The gradient of attention by fp32 multiply-adds in one kernel, for segments of up to 256 rows and head sizes up to
// 64: memory is read once and p and ds are made once, where the two kernels of attention_backward.cu do either twice.
//
// A block owns a segment and key/value head, whose keys and values stay in shared memory. Queries of all its heads pass
// by in tiles of 32 items (rows.cuh). A warp owns 16 keys: lane l makes p and ds of keys l / 8 + 4 i and the tile's
// queries l % 8 + 8 j, and has quads l % 8 + 8 c of dk and dv of the same keys in registers. Since all keys are there,
// dq of the tile is complete once every warp has left its ds in shared memory: a lane sums up quads of 4 queries.
//
// p and ds stay fp32; sums have a fixed order. Bound by shared-memory reads: 8 for 16 quads of multiply-adds in the
// scores, 12 for 32 in dk and dv, 2 for 4 in dq. A lane has 128 registers. 128 rows of head size 64 take 8 warps and
// 102 KB, 256 rows 16 warps and 186 KB; a GPU that allows a block 163 KB does up to 208 rows.
#pragma once
#include "kernels/attention/fma_tiles.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

constexpr int kWarpKeys = 16;                // of a warp
constexpr int kKeyWarps = 16;                // of a block, at most
constexpr int kLaneKeys = 4;                 // of a lane
constexpr int kLaneQueries = kTileRows / 8;  // whose scores a lane makes

// A block's shared memory: the tile, then a record a key, so that every place is a constant away from one pointer. The
// records of keys that lanes write together lie 8 banks apart.
template <int kQuads>
struct WholeFma {
  using Tiles = FmaTiles<kQuads>;
  static constexpr int kStep = Tiles::kStep, kWidth = Tiles::kWidth;
  static constexpr int kRecord = 2 * kStep + kTileRows;            // k, v, weights of a key
  static constexpr int kTileFloats = kTileRows * (2 * kStep + 3);  // q, do, lse, delta, row
  static constexpr int kParts = kWidth / 32;                       // quads of dk and dv that a lane has of a key
  static constexpr int kAcross = kWidth / 4;                       // lanes side by side in a row of dq
  static constexpr int kDqRows = 4;                                // of dq, that a warp makes at a time
  static_assert(kRecord % 32 == 8);

  float* memory;

  static int64_t bytes(int64_t keys) { return (kTileFloats + keys * kRecord) * int64_t{sizeof(float)}; }

  __device__ float* q(int row) const { return memory + row * kStep; }
  __device__ float* d_o(int row) const { return memory + (kTileRows + row) * kStep; }
  __device__ float& lse(int row) const { return memory[2 * kTileRows * kStep + row]; }
  __device__ float& delta(int row) const { return memory[2 * kTileRows * kStep + kTileRows + row]; }
  __device__ int& row(int row) const { return reinterpret_cast<int*>(&delta(kTileRows))[row]; }  // of all
  __device__ float* k(int key) const { return memory + kTileFloats + key * kRecord; }
  __device__ float* v(int key) const { return k(key) + kStep; }
  __device__ float* weights(int key) const { return k(key) + 2 * kStep; }  // [kTileRows] p, then ds

  static __device__ int lane() { return thread_in_block() % kWarp; }
  static __device__ int first_key() { return thread_in_block() / kWarp * kWarpKeys; }  // of the warp
  static __device__ int my_key() { return first_key() + lane() / 8; }                  // the lane's first

  // s[i][j]: `own`, the row of the lane's key 4 i further, times `tile`, the row of its query 8 j further.
  static __device__ void dots(const float* own, const float* tile, float (&s)[kLaneKeys][kLaneQueries]) {
#pragma unroll
    for (int i = 0; i < kLaneKeys; ++i)
      for (int j = 0; j < kLaneQueries; ++j) s[i][j] = 0;
#pragma unroll 1
    for (int c = 0; c < kWidth / 4; ++c) {
      Quad x[kLaneKeys];
#pragma unroll
      for (int i = 0; i < kLaneKeys; ++i) x[i] = Tiles::quads(own + 4 * i * kRecord)[c];
#pragma unroll
      for (int j = 0; j < kLaneQueries; ++j) {
        const Quad y = Tiles::quads(tile + 8 * j * kStep)[c];
#pragma unroll
        for (int e = 0; e < 4; ++e)
#pragma unroll
          for (int i = 0; i < kLaneKeys; ++i) s[i][j] += x[i][e] * y[e];
      }
    }
  }

  // Adds rows of the tile, weighted, to the lane's quads of its keys.
  __device__ void add(Quad (&sum)[kLaneKeys][kParts], const float* rows) const {
    const float* own = weights(my_key());
#pragma unroll 1
    for (int j = 0; j < kTileRows; j += 4) {
      Quad w[kLaneKeys];
#pragma unroll
      for (int i = 0; i < kLaneKeys; ++i) w[i] = Tiles::quads(own + 4 * i * kRecord + j)[0];
#pragma unroll
      for (int e = 0; e < 4; ++e)
#pragma unroll
        for (int c = 0; c < kParts; ++c) {
          const Quad x = Tiles::quads(rows + (j + e) * kStep)[lane() % 8 + 8 * c];
#pragma unroll
          for (int i = 0; i < kLaneKeys; ++i)
#pragma unroll
            for (int d = 0; d < 4; ++d) sum[i][c][d] += w[i][e] * x[d];
        }
    }
  }

  // The lane's quads of its keys into `own`, the row of its first.
  static __device__ void put(float* own, const Quad (&sum)[kLaneKeys][kParts]) {
#pragma unroll
    for (int i = 0; i < kLaneKeys; ++i)
#pragma unroll
      for (int c = 0; c < kParts; ++c) reinterpret_cast<Quad*>(own + 4 * i * kRecord)[lane() % 8 + 8 * c] = sum[i][c];
  }

  // Rows `first` ... of dq, kDqRows of them, from ds of the segment's first `seen` keys, in place of q. Made by a warp,
  // whose groups of kAcross lanes take keys in turn.
  __device__ void make_dq(int first, int seen) const {
    constexpr int kGroups = kWarp / kAcross;
    const int quad = lane() % kAcross;
    Quad sum[kDqRows] = {};
#pragma unroll 4
    for (int key = lane() / kAcross; key < seen; key += kGroups) {
      const Quad w = Tiles::quads(weights(key) + first)[0], x = Tiles::quads(k(key))[quad];
#pragma unroll
      for (int i = 0; i < kDqRows; ++i)
#pragma unroll
        for (int d = 0; d < 4; ++d) sum[i][d] += w[i] * x[d];
    }
#pragma unroll
    for (int i = 0; i < kDqRows; ++i) {
#pragma unroll
      for (int d = 0; d < 4; ++d)
#pragma unroll
        for (int lanes = kAcross; lanes < kWarp; lanes *= 2) sum[i][d] += shfl_xor(sum[i][d], lanes);
      if (lane() < kAcross) reinterpret_cast<Quad*>(q(first + i))[quad] = sum[i];
    }
  }
};

constexpr int kAtOnce = 2;  // rows that a warp loads together

// The warp's keys and values; zeros past the segment's end.
template <class T, int kQuads>
__device__ void load_own_keys(const AttentionBackward& a, const Place& at, const WholeFma<kQuads>& m) {
  const int D = a.shape.D, lane = m.lane();
#pragma unroll 1
  for (int first = m.first_key(); first < m.first_key() + kWarpKeys; first += kAtOnce) {
    RowPair k[kAtOnce], v[kAtOnce];
#pragma unroll
    for (int r = 0; r < kAtOnce; ++r) {
      const int row = at.begin + min(first + r, at.rows() - 1);
      const bool there = first + r < at.rows();
      k[r].load(static_cast<const T*>(a.k) + row * a.k_stride + at.g * D, there, lane, D);
      v[r].load(static_cast<const T*>(a.v) + row * a.v_stride + at.g * D, there, lane, D);
    }
#pragma unroll
    for (int r = 0; r < kAtOnce; ++r) {
      k[r].template turn<T>(angles_of(a.shape, at.begin + min(first + r, at.rows() - 1), at.begin), lane, D);
      k[r].put(m.k(first + r), lane, D), v[r].put(m.v(first + r), lane, D);
      put_zeros(m.k(first + r), D, m.kWidth), put_zeros(m.v(first + r), D, m.kWidth);
    }
  }
}

// The tile of items `item` ... , with zeros and p = 0 past the last. Made by the block.
template <class T, int kQuads>
__device__ void load_tile(const AttentionBackward& a, const Place& at, int item, const WholeFma<kQuads>& m) {
  const int D = a.shape.D, H = a.shape.H, lane = m.lane(), warps = threads_in_block() / kWarp;
#pragma unroll 1
  for (int first = thread_in_block() / kWarp * kAtOnce; first < kTileRows; first += warps * kAtOnce) {
    RowPair q[kAtOnce], d_o[kAtOnce], o[kAtOnce];
#pragma unroll
    for (int r = 0; r < kAtOnce; ++r) {
      const Query query = query_of(at, min(item + first + r, at.items() - 1));
      const bool there = item + first + r < at.items();
      q[r].load(static_cast<const T*>(a.q) + query.in(a.q_stride, D), there, lane, D);
      d_o[r].load(static_cast<const T*>(a.d_o) + query.in(int64_t(H) * D, D), there, lane, D);
      o[r].load(static_cast<const T*>(a.o) + query.in(int64_t(H) * D, D), there, lane, D);
    }
    const int mine = item + first + lane % kAtOnce;  // whose numbers the lane has
    const Query query = query_of(at, min(mine, at.items() - 1));
    const float lse = mine < at.items() ? a.lse[query.in(H, 1)] : INFINITY;
    float delta = 0;
#pragma unroll
    for (int r = 0; r < kAtOnce; ++r) {
      const float sum = warp_sum(d_o[r].low * o[r].low + d_o[r].high * o[r].high);
      if (lane == r) delta = sum;
      q[r].template turn<T>(angles_of(a.shape, __shfl_sync(kFullMask, query.row, r), at.begin), lane, D);
      q[r].put(m.q(first + r), lane, D), d_o[r].put(m.d_o(first + r), lane, D);
      put_zeros(m.q(first + r), D, m.kWidth), put_zeros(m.d_o(first + r), D, m.kWidth);
    }
    if (lane < kAtOnce) m.lse(first + lane) = lse, m.delta(first + lane) = delta, m.row(first + lane) = query.row;
  }
}

template <class T, int kQuads>
__global__ void __launch_bounds__(kKeyWarps* kWarp) attention_backward_fma_whole_kernel(const AttentionBackward a) {
  using Whole = WholeFma<kQuads>;
  const AttentionShape& shape = a.shape;
  const int D = shape.D, warps = threads_in_block() / kWarp, warp = thread_in_block() / kWarp;
  const Place at = place_of(shape, 1);
  if (at.rows() <= 0) return;
  GPU_SHARED_DYNAMIC(float, memory);
  const Whole m{memory + 0};
  const int lane = m.lane(), first_key = m.first_key(), my_key = at.begin + m.my_key();

  const Visible visible = visible_keys(shape, at.begin, at.end);
  unsigned open = 0;  // bit i: the mask leaves the lane's key my_key + 4 i visible
  for (int i = 0; i < kLaneKeys; ++i)
    open |= unsigned{!shape.key_mask || (my_key + 4 * i < at.end && shape.key_mask[my_key + 4 * i])} << i;
  if (first_key < at.rows()) load_own_keys<T>(a, at, m);
  Quad dk[kLaneKeys][Whole::kParts] = {}, dv[kLaneKeys][Whole::kParts] = {};

#pragma unroll 1
  for (int item = 0; item < at.items(); item += kTileRows) {
    const int count = min(kTileRows, at.items() - item);
    const int seen = shape.causal ? query_of(at, item + count - 1).row + 1 - at.begin : at.rows();  // keys, by any
    __syncthreads();  // the last tile has been read
    load_tile<T>(a, at, item, m);
    __syncthreads();
    if (first_key < seen) {
      float s[kLaneKeys][kLaneQueries];
      m.dots(m.k(m.my_key()), m.q(lane % 8), s);
#pragma unroll
      for (int j = 0; j < kLaneQueries; ++j) {
        const int there = lane % 8 + 8 * j, row = m.row(there);
        const bool keyless = visible.keyless(shape, row, at.end);
        const float factor = keyless ? 0 : shape.scale, lse = m.lse(there);
#pragma unroll
        for (int i = 0; i < kLaneKeys; ++i) {  // keys past the segment's end count for nothing that is stored
          const bool sees = (!shape.causal || my_key + 4 * i <= row) && (keyless || open >> i & 1);
          m.weights(m.my_key() + 4 * i)[there] = expf(sees ? s[i][j] * factor - lse : -INFINITY);
        }
      }
      __syncwarp();
      m.add(dv, m.d_o(0));
      m.dots(m.v(m.my_key()), m.d_o(lane % 8), s);
      __syncwarp();  // p has been read, but for the lane's own
#pragma unroll
      for (int j = 0; j < kLaneQueries; ++j) {
        const int there = lane % 8 + 8 * j;
        const float delta = m.delta(there);
#pragma unroll
        for (int i = 0; i < kLaneKeys; ++i) {
          float& weight = m.weights(m.my_key() + 4 * i)[there];
          weight = shape.scale * weight * (s[i][j] - delta);
        }
      }
      __syncwarp();
      m.add(dk, m.q(0));
    }
    __syncthreads();  // ds is there, and q has been read
#pragma unroll 1
    for (int first = warp * Whole::kDqRows; first < count; first += warps * Whole::kDqRows) {
      m.make_dq(first, seen);
      __syncwarp();
#pragma unroll 1
      for (int r = first; r < min(first + Whole::kDqRows, count); ++r) {
        const Query query = query_of(at, item + r);
        store_row(static_cast<T*>(a.dq) + query.in(a.q_stride, D), m.q(r), D, angles_of(shape, query.row, at.begin));
      }
    }
  }

  __syncthreads();  // keys have been read
  m.put(m.k(m.my_key()), dk), m.put(m.v(m.my_key()), dv);
  __syncwarp();
#pragma unroll 1
  for (int r = first_key; r < min(first_key + kWarpKeys, at.rows()); ++r) {
    const int row = at.begin + r;
    store_row(static_cast<T*>(a.dk) + row * a.k_stride + at.g * D, m.k(r), D, angles_of(shape, row, at.begin));
    store_row(static_cast<T*>(a.dv) + row * a.v_stride + at.g * D, m.v(r), D);
  }
}

// Calls f with the number of quads, for head sizes up to 64.
template <class F>
auto with_few_quads(int D, const F& f) {
  return D <= 32 ? f(std::integral_constant<int, 2>{}) : f(std::integral_constant<int, 4>{});
}

constexpr const char* kFmaWholeDoes =
    "heads of size up to 64, segments of up to 256 rows where shared memory holds them";
// As far as shared memory goes.
inline bool fma_fits_one_block(const AttentionShape& shape, Stream stream) {
  const int64_t warps = ceil_div(shape.longest, kWarpKeys);
  if (shape.D > 64 || warps > kKeyWarps) return false;
  return with_few_quads(shape.D, [&]<int kQuads>(std::integral_constant<int, kQuads>) {
    return WholeFma<kQuads>::bytes(warps * kWarpKeys) <= shared_limit("attention_backward", stream);
  });
}

inline void launch_fma_in_one_block(const AttentionBackward& a, Stream stream) {
  const AttentionShape& shape = a.shape;
  const int64_t warps = ceil_div(shape.longest, kWarpKeys);
  with_float(shape.dtype, [&]<class T>(Type<T>) {
    with_few_quads(shape.D, [&]<int kQuads>(std::integral_constant<int, kQuads>) {
      launch("attention_backward_fma_whole", attention_backward_fma_whole_kernel<T, kQuads>,
             {shape.S * shape.G, warps * kWarp, WholeFma<kQuads>::bytes(warps * kWarpKeys), stream}, a);
    });
  });
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
