// The gradient of attention of bf16 by tensor cores in one kernel, for segments of up to 256 rows and head sizes 32 and
// 64: memory is read once, where the two kernels of mma_backward.cuh read q, k, v and do twice.
//
// A segment and key/value head has two blocks, which run side by side, so that the second to read a row finds it in the
// L2 cache. One makes dq: keys and values lie in shared memory, and a warp takes 16 queries of one head at a time. The
// other makes dk and dv: a warp takes 16 keys at a time, and chunks of q and do lie in shared memory. A warp's own rows
// come straight from global memory into registers (mma_parts.cuh) and its sums stay there, so every sum has a fixed
// order. Both make p and ds anew: two products more than a single pass, but no warp waits for another's ds.
//
// The product of do and v starts at -delta; ds stays fp32 until it enters a product. Bound by reads of shared memory:
// 512 bytes for every two mma, since 16 rows are all that registers hold. Three blocks share a multiprocessor, with 168
// registers a lane, and cover each other's loads.
#pragma once
#include "kernels/attention/mma_backward.cuh"
#include "kernels/attention/mma_parts.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

constexpr int kWholeRows = 256;  // of a segment, at most
constexpr int kWholeWarps = 4;   // of a block, at most

// Angles of a row, or of the last one for those past the segment's end.
__device__ inline Angles angles_in(const AttentionShape& shape, const Place& at, int row) {
  return angles_of(shape, min(row, at.end - 1), at.begin);
}

// A lane's quarter of k and v; zeros past the segment's end. Turned later than loaded, so that the loads of several
// parts are under way together.
template <int D>
struct KeyPart {
  RowPart<D> k, v;

  __device__ KeyPart(const AttentionBackward& a, const Place& at, int row) {
    const int from = min(row, at.end - 1), lane = thread_in_block() % 4;
    k = RowPart<D>(static_cast<const bf16*>(a.k) + from * a.k_stride + at.g * D, row < at.end, lane);
    v = RowPart<D>(static_cast<const bf16*>(a.v) + from * a.v_stride + at.g * D, row < at.end, lane);
  }
  __device__ void turn(const AttentionShape& shape, const Place& at, int row) {
    k.turn(angles_in(shape, at, row), thread_in_block() % 4);
  }
};

// A lane's quarter of q, do and o, likewise.
template <int D>
struct QueryPart {
  RowPart<D> q, d_o, o;
  float lse;  // in powers of two; past the end INFINITY, whose p is 0

  __device__ QueryPart(const AttentionBackward& a, const Place& at, int row, int head) {
    const Query from{min(row, at.end - 1), at.g * at.n + head};
    const auto part = [&](const void* x, int64_t stride) {
      return RowPart<D>(static_cast<const bf16*>(x) + from.in(stride, D), row < at.end, thread_in_block() % 4);
    };
    q = part(a.q, a.q_stride), d_o = part(a.d_o, int64_t(a.shape.H) * D), o = part(a.o, int64_t(a.shape.H) * D);
    lse = row < at.end ? a.lse[from.in(a.shape.H, 1)] * kLog2e : INFINITY;
  }
  __device__ void turn(const AttentionShape& shape, const Place& at, int row) {
    q.turn(angles_in(shape, at, row), thread_in_block() % 4);
  }
  // Made by whole warps.
  __device__ float delta() const {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < D / 8; ++w)
      sum += low_bf16(d_o.word[w]) * low_bf16(o.word[w]) + high_bf16(d_o.word[w]) * high_bf16(o.word[w]);
    return row_sum(sum);
  }
};

// Scores against what is not seen become -INFINITY, those of a row without keys 0. Bits count columns of s: `seen`
// those that an own row meets, `even` those where the score does not matter.
template <int N>
__device__ void hide(float (&s)[N][4], const unsigned (&seen)[2], const unsigned (&even)[2]) {
  const int column = thread_in_block() % 4 * 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const unsigned mine = seen[half] >> column, mine_even = even[half] >> column;
#pragma unroll
    for (int j = 0; j < N; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& x = s[j][2 * half + e];
        x = mine >> (8 * j + e) & 1 ? (mine_even >> (8 * j + e) & 1 ? 0 : x) : -INFINITY;
      }
  }
}

// Rows of a segment in whole tiles of kMmaRows.
__device__ inline int rows_of_tiles(const Place& at) { return (at.rows() + kMmaRows - 1) / kMmaRows * kMmaRows; }

// Rows begin ... end - 1 of the segment with all heads into shared memory, a head `chunk` rows after the last.
template <int D>
__device__ void load_queries(const AttentionBackward& a, const Place& at, int begin, int end, int chunk, bf16* q,
                             bf16* d_o, float* lse, float* start) {
  for (int head = 0; head < at.n; ++head)
    for (int i = thread_in_block(); i < 4 * (end - begin); i += threads_in_block()) {
      const int row = begin + i / 4, there = head * chunk + i / 4;
      QueryPart<D> part(a, at, at.begin + row, head);
      part.turn(a.shape, at, at.begin + row);
      const float sum = part.delta();
      part.q.share(q + there * (D + 8), i % 4), part.d_o.share(d_o + there * (D + 8), i % 4);
      if (i % 4 == 0) lse[there] = part.lse, start[there] = -sum;
    }
}

// dq of all heads: a warp takes 16 rows of one head at a time, the longest work first.
template <int D>
__device__ void make_dq(const AttentionBackward& a, const Place& at, bf16* keys, bf16* values) {
  GPU_SHARED(int, next, [1]);  // work not yet taken
  const AttentionShape& shape = a.shape;
  const int lane = thread_in_block() % kWarp, tiles = rows_of_tiles(at) / kMmaRows;
  for (int i = thread_in_block(); i < 4 * tiles * kMmaRows; i += threads_in_block()) {
    KeyPart<D> part(a, at, at.begin + i / 4);
    part.turn(shape, at, at.begin + i / 4);
    part.k.share(keys + i / 4 * (D + 8), i % 4), part.v.share(values + i / 4 * (D + 8), i % 4);
  }
  if (thread_in_block() == 0) next[0] = 0;
  const Visible visible = visible_keys(shape, at.begin, at.end);
  __syncthreads();

  for (;;) {
    const int unit = take_unit(&next[0]);
    if (unit >= tiles * at.n) break;
    const int tile = tiles - 1 - unit / at.n, head = unit % at.n;
    const int row = at.begin + tile * kMmaRows + lane / 4;  // and 8 further
    QueryPart<D> upper(a, at, row, head), lower(a, at, row + 8, head);
    upper.turn(shape, at, row), lower.turn(shape, at, row + 8);
    const float upper_delta = upper.delta(), lower_delta = lower.delta();
    float dq[D / 8][4] = {};
    const int seen_end = (shape.causal ? tile + 1 : tiles) * kMmaRows;
    for (int key = 0; key < seen_end; key += kMmaRows) {
      float p[2][4] = {}, ds[2][4];
#pragma unroll
      for (auto& x : ds) x[0] = x[1] = -upper_delta, x[2] = x[3] = -lower_delta;
      multiply_parts(p, upper.q, lower.q, keys + key * (D + 8));
      multiply_parts(ds, upper.d_o, lower.d_o, values + key * (D + 8));
      if (shape.key_mask || key + kMmaRows == seen_end) {  // else these rows see all of these keys
        const unsigned open = visible_bits(shape, at.begin + key, at.end);
        unsigned seen[2], even[2];
        for (int half = 0; half < 2; ++half) {
          const int query = row + 8 * half, end = shape.causal ? min(query + 1, at.end) : at.end;
          even[half] = visible.keyless(shape, query, at.end) ? kFullMask : 0;
          seen[half] = (open | even[half]) & bits_below(end, at.begin + key);
        }
        hide(p, seen, even);
      }
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          ds[j][e] *= shape.scale * ex2(fmaf(p[j][e], shape.scale * kLog2e, -(e < 2 ? upper.lse : lower.lse)));
      add_rows<D>(dq, ds, keys + key * (D + 8));
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int query = row + 8 * half;
      if (query < at.end)
        store_part<D>(static_cast<bf16*>(a.dq) + Query{query, at.g * at.n + head}.in(a.q_stride, D), dq, half,
                      angles_of(shape, query, at.begin));
    }
  }
}

// dk and dv: a warp takes 16 keys at a time. `chunk` rows of queries pass by together, with all heads.
template <int D>
__device__ void make_dkv(const AttentionBackward& a, const Place& at, int chunk, bf16* q, bf16* d_o) {
  GPU_SHARED(float, lse, [kWholeRows]);    // of the queries in shared memory
  GPU_SHARED(float, start, [kWholeRows]);  // their -delta
  const AttentionShape& shape = a.shape;
  const int lane = thread_in_block() % kWarp, rows = rows_of_tiles(at);
  const int warps = threads_in_block() / kWarp, block_rows = warps * kMmaRows;
  const Visible visible = visible_keys(shape, at.begin, at.end);
  // A warp's rows of block_rows. Blocks differ in which warp takes what is left over at the end.
  int turn = (thread_in_block() / kWarp + static_cast<int>(blockIdx.x) / 2) % warps * kMmaRows;
  int loaded = -1;  // first row of the chunk that lies there

  for (int first = 0; first < rows; first += block_rows) {
    const int own = first + turn;
    turn = block_rows - kMmaRows - turn;         // the other way about, which evens out causal work
    const int mine = at.begin + own + lane / 4;  // and 8 further
    bool open[2];                                // the mask leaves the key visible
    for (int half = 0; half < 2; ++half)
      open[half] = !shape.key_mask || (mine + 8 * half < at.end && shape.key_mask[mine + 8 * half]);
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};

    for (int begin = shape.causal ? first / chunk * chunk : 0; begin < rows; begin += chunk) {
      const int end = min(begin + chunk, rows);
      if (begin != loaded) {
        __syncthreads();  // the last chunk has been read
        load_queries<D>(a, at, begin, end, chunk, q, d_o, &lse[0], &start[0]);
        loaded = begin;
        __syncthreads();
      }
      KeyPart<D> upper(a, at, mine), lower(a, at, mine + 8);  // not before: loading needs the registers
      upper.turn(shape, at, mine), lower.turn(shape, at, mine + 8);
      const int meets = own >= rows ? end : shape.causal ? max(own, begin) : begin;
      for (int head = 0; head < at.n; ++head) {
        const int place = head * chunk - begin;
        for (int query = meets; query < end; query += kMmaRows) {
          const int there = place + query, column = there + lane % 4 * 2;
          float p[2][4] = {}, ds[2][4];
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            const Vec<float, 2> from = ld8(&start[column + 8 * j]);
            ds[j][0] = ds[j][2] = from[0], ds[j][1] = ds[j][3] = from[1];
          }
          multiply_parts(p, upper.k, lower.k, q + there * (D + 8));
          multiply_parts(ds, upper.v, lower.v, d_o + there * (D + 8));
          if (shape.key_mask || (shape.causal && query == own)) {  // else all of these queries see these keys
            const int row = at.begin + query;
            const unsigned keyless = shape.causal              ? bits_below(visible.first, row)
                                     : visible.first == at.end ? kFullMask
                                                               : 0;
            unsigned seen[2];
            for (int half = 0; half < 2; ++half) {
              seen[half] = open[half] ? kFullMask : keyless;
              if (shape.causal) seen[half] &= ~bits_below(mine + 8 * half, row);
            }
            hide(p, seen, {keyless, keyless});
          }
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            const Vec<float, 2> origin = ld8(&lse[column + 8 * j]);
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              p[j][e] = ex2(fmaf(p[j][e], shape.scale * kLog2e, -origin[e % 2]));
              ds[j][e] *= shape.scale * p[j][e];
            }
          }
          add_rows<D>(dv, p, d_o + there * (D + 8));
          add_rows<D>(dk, ds, q + there * (D + 8));
        }
      }
    }

#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int key = mine + 8 * half;
      if (key >= at.end) continue;
      store_part<D>(static_cast<bf16*>(a.dk) + key * a.k_stride + at.g * D, dk, half, angles_of(shape, key, at.begin));
      store_part<D>(static_cast<bf16*>(a.dv) + key * a.v_stride + at.g * D, dv, half, {nullptr, nullptr});
    }
  }
}

template <int D>
__global__ void __launch_bounds__(kWholeWarps* kWarp, 3)
    attention_backward_whole_kernel(const AttentionBackward a, int chunk, int rows) {
  const Place at = place_of(a.shape, 2);
  if (at.rows() <= 0) return;
  GPU_SHARED_DYNAMIC(bf16, memory);
  bf16 *const first = memory + 0, *second = first + rows * (D + 8);
  if (at.tile == 0)
    make_dkv<D>(a, at, chunk, first, second);
  else
    make_dq<D>(a, at, first, second);
}

static_assert(kWholeRows == 256 && kMmaRows == 16);
constexpr const char* kWholeBackwardDoes =
    "bf16 heads of size 32 and 64, rows at 16-byte addresses, segments of up to 256 rows, up to 16 query heads a "
    "key/value head";
inline bool fits_one_block(const AttentionBackward& a) {
  return for_tensor_cores(a) && a.shape.D <= 64 && a.shape.longest <= kWholeRows &&
         a.shape.H / a.shape.G * kMmaRows <= kWholeRows;
}

inline void launch_in_one_block(const AttentionBackward& a, Stream stream) {
  const AttentionShape& shape = a.shape;
  const int64_t heads = shape.H / shape.G, tiles = ceil_div(shape.longest, kMmaRows);
  // A chunk of queries is a whole segment of one head, or what a third of a multiprocessor holds of several.
  const int64_t chunk = std::min(tiles, std::max<int64_t>(1, std::max<int64_t>(tiles, 12) / heads)) * kMmaRows;
  const int64_t rows = std::max(tiles * kMmaRows, chunk * heads);
  const int64_t warps = std::min<int64_t>(kWholeWarps, tiles);
  const auto start = [&]<int D>(std::integral_constant<int, D>) {
    const int64_t bytes = 2 * rows * (D + 8) * int64_t{sizeof(bf16)};
    launch("attention_backward_whole", attention_backward_whole_kernel<D>,
           {2 * shape.S * shape.G, warps * kWarp, bytes, stream}, a, chunk, rows);
  };
  if (shape.D == 32) return start(std::integral_constant<int, 32>{});
  start(std::integral_constant<int, 64>{});
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
