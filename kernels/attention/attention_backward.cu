// The gradient of attention on a GPU: bf16 of the usual head sizes by tensor cores (mma_whole_backward.cuh,
// mma_backward.cuh), the rest by fp32 multiply-adds, for any head size up to 128 and any alignment: short segments in
// one kernel (fma_whole_backward.cuh), others here.
//
//   p = e^(scale s - lse),   ds = scale p (do . v - delta),   delta = do . o
//   dv = sum of p do,   dq' = sum of ds k',   dk' = sum of ds q',   and dq, dk are dq', dk' rotated back
//
// Two kernels, each of which makes p and ds anew, so that every sum belongs to one warp and has a fixed order: the
// first owns queries and meets tiles of keys (dq, delta), the second owns keys and meets tiles of queries (dk, dv).
// p and ds stay fp32. Bound by shared-memory reads, as the forward direction.
#include "kernels/attention/fma_tiles.cuh"
#include "kernels/attention/fma_whole_backward.cuh"
#include "kernels/attention/mma_whole_backward.cuh"

namespace nanovlm::kernels {
namespace {

constexpr int kMaxWarps = 4;

// Two matrices of a tile, two of own rows, two rows of weights an own row.
int64_t shared_floats(int warps, int step) {
  return 2 * (kTileRows + warps * kOwnRows) * step + 2 * warps * kOwnRows * kWeightStep;
}

// Where a warp's rows lie in shared memory.
template <int kStep>
struct Layout {
  float *tile[2], *own[2];  // rows of a tile; rows of the warp
  float* weights[2];        // of the lane's own row
  int mine;                 // offset of the lane's own row from the warp's first

  __device__ explicit Layout(float* memory) {
    const int warps = threads_in_block() / kWarp, warp = thread_in_block() / kWarp;
    mine = thread_in_block() % kWarp / kPeers * kStep;
    for (int i = 0; i < 2; ++i) {
      tile[i] = memory + i * kTileRows * kStep;
      own[i] = memory + (2 * kTileRows + (2 * warp + i) * kOwnRows) * kStep;
      weights[i] = memory + 2 * (kTileRows + warps * kOwnRows) * kStep +
                   (i * warps * kOwnRows + thread_in_block() / kPeers) * kWeightStep;
    }
  }
};

// q and d_o of an item, or zeros.
template <class T>
__device__ void load_query(const AttentionBackward& a, const Place& at, int item, bool there, int width, float* q,
                           float* d_o) {
  const Query query = query_of(at, item);
  const int D = a.shape.D;
  const T* from = there ? static_cast<const T*>(a.q) + query.in(a.q_stride, D) : nullptr;
  load_row(q, width, from, D, there ? angles_of(a.shape, query.row, at.begin) : Angles{});
  load_row(d_o, width, there ? static_cast<const T*>(a.d_o) + query.in(int64_t(a.shape.H) * D, D) : nullptr, D);
}

// k and v of a row, or zeros.
template <class T>
__device__ void load_key(const AttentionBackward& a, const Place& at, int row, bool there, int width, float* k,
                         float* v) {
  const int D = a.shape.D;
  const T* from = there ? static_cast<const T*>(a.k) + row * a.k_stride + at.g * D : nullptr;
  load_row(k, width, from, D, there ? angles_of(a.shape, row, at.begin) : Angles{});
  load_row(v, width, there ? static_cast<const T*>(a.v) + row * a.v_stride + at.g * D : nullptr, D);
}

// dq of a tile of items, and deltas [R, H].
template <class T, int kQuads>
__global__ void __launch_bounds__(kMaxWarps* kWarp, kQuads < 8 ? 4 : 3)
    attention_dq_kernel(const AttentionBackward a, float* deltas, int tiles) {
  using Tiles = FmaTiles<kQuads>;
  constexpr int kStep = Tiles::kStep, kWidth = Tiles::kWidth;
  const AttentionShape& shape = a.shape;
  const int D = shape.D, warps = threads_in_block() / kWarp, warp = thread_in_block() / kWarp;
  const int lane = thread_in_block() % kWarp, peer = lane % kPeers;
  const Place at = place_of(shape, tiles);
  const int first = at.tile * warps * kOwnRows, items = min(warps * kOwnRows, at.items() - first);
  if (items <= 0) return;

  GPU_SHARED_DYNAMIC(float, memory);
  const Layout<kStep> l(memory + 0);
  for (int r = 0; r < kOwnRows; ++r) {
    const int item = warp * kOwnRows + r;
    load_query<T>(a, at, first + item, item < items, kWidth, l.own[0] + r * kStep, l.own[1] + r * kStep);
  }
  __syncwarp();

  const Query mine = query_of(at, first + thread_in_block() / kPeers);
  const bool there = thread_in_block() / kPeers < items;
  const float* q = l.own[0] + l.mine;
  const float* d_o = l.own[1] + l.mine;
  const float lse = there ? a.lse[int64_t(mine.row) * shape.H + mine.head] : 0;
  float delta = 0;
  for (int r = 0; r < kOwnRows && warp * kOwnRows + r < items; ++r) {  // a row by all lanes reads whole sectors
    const T* o = static_cast<const T*>(a.o) + query_of(at, first + warp * kOwnRows + r).in(int64_t(shape.H) * D, D);
    float sum = 0;
    for (int d = lane; d < D; d += kWarp) sum += l.own[1][r * kStep + d] * static_cast<float>(o[d]);
    sum = warp_sum(sum);
    if (lane / kPeers == r) delta = sum;
  }
  if (there && peer == 0) deltas[int64_t(mine.row) * shape.H + mine.head] = delta;

  const bool keyless = visible_keys(shape, at.begin, at.end).keyless(shape, mine.row, at.end);
  const float scale = keyless ? 0 : shape.scale;
  const int my_end = shape.causal ? min(mine.row + 1, at.end) : at.end;
  const int end = shape.causal ? query_of(at, first + items - 1).row + 1 : at.end;
  Quad dq[kQuads] = {};
  for (int key = at.begin; key < end; key += kTileRows) {
    const int count = min(kTileRows, end - key);
    __syncthreads();  // the last tile has been read
    for (int r = warp; r < kTileRows; r += warps)
      load_key<T>(a, at, key + r, r < count, kWidth, l.tile[0] + r * kStep, l.tile[1] + r * kStep);
    const unsigned bits = visible_bits(shape, key, at.end);
    const unsigned seen = (keyless ? kFullMask : bits) & bits_below(my_end, key);
    __syncthreads();
    float s[kEach], dp[kEach];
    Tiles::dots(q, l.tile[0], s);
    Tiles::dots(d_o, l.tile[1], dp);
    for (int i = 0; i < kEach; ++i) {
      const int j = peer + i * kPeers;
      const float p = seen >> j & 1 ? expf(s[i] * scale - lse) : 0;
      l.weights[0][j] = shape.scale * p * (dp[i] - delta);
    }
    __syncwarp();
    Tiles::add(dq, l.weights[0], l.tile[0], count);
  }

  Tiles::put(l.own[0] + l.mine, dq, 1);
  __syncwarp();
  for (int r = 0; r < kOwnRows && warp * kOwnRows + r < items; ++r) {
    const Query query = query_of(at, first + warp * kOwnRows + r);
    store_row(static_cast<T*>(a.dq) + query.in(a.q_stride, D), l.own[0] + r * kStep, D,
              angles_of(shape, query.row, at.begin));
  }
}

// dk and dv of a tile of keys.
template <class T, int kQuads>
__global__ void __launch_bounds__(kMaxWarps* kWarp, 3)
    attention_dkv_kernel(const AttentionBackward a, const float* deltas, int tiles) {
  using Tiles = FmaTiles<kQuads>;
  constexpr int kStep = Tiles::kStep, kWidth = Tiles::kWidth;
  const AttentionShape& shape = a.shape;
  const int D = shape.D, warps = threads_in_block() / kWarp, warp = thread_in_block() / kWarp;
  const int peer = thread_in_block() % kPeers;
  const Place at = place_of(shape, tiles);
  const int first = at.begin + at.tile * warps * kOwnRows, rows = min(warps * kOwnRows, at.end - first);
  if (rows <= 0) return;

  GPU_SHARED_DYNAMIC(float, memory);
  const Layout<kStep> l(memory + 0);
  for (int r = 0; r < kOwnRows; ++r) {
    const int row = warp * kOwnRows + r;
    load_key<T>(a, at, first + row, row < rows, kWidth, l.own[0] + r * kStep, l.own[1] + r * kStep);
  }

  const int mine = first + thread_in_block() / kPeers;
  const Visible visible = visible_keys(shape, at.begin, at.end);
  const bool masked = shape.key_mask && mine < at.end && !shape.key_mask[mine];
  Quad dk[kQuads] = {}, dv[kQuads] = {};
  for (int item = shape.causal ? (first - at.begin) * at.n : 0; item < at.items(); item += kTileRows) {
    const int count = min(kTileRows, at.items() - item);
    __syncthreads();  // the last tile has been read
    for (int r = warp; r < kTileRows; r += warps)
      load_query<T>(a, at, item + r, r < count, kWidth, l.tile[0] + r * kStep, l.tile[1] + r * kStep);
    __syncthreads();
    float s[kEach], dp[kEach];
    Tiles::dots(l.own[0] + l.mine, l.tile[0], s);
    Tiles::dots(l.own[1] + l.mine, l.tile[1], dp);
    for (int i = 0; i < kEach; ++i) {
      const int j = peer + i * kPeers;
      const Query query = query_of(at, item + j);
      const bool keyless = visible.keyless(shape, query.row, at.end);
      float p = 0, ds = 0;
      if (j < count && (!shape.causal || query.row >= mine) && (keyless || !masked)) {
        const int64_t head = int64_t(query.row) * shape.H + query.head;
        p = expf(s[i] * (keyless ? 0 : shape.scale) - a.lse[head]);
        ds = shape.scale * p * (dp[i] - deltas[head]);
      }
      l.weights[0][j] = ds, l.weights[1][j] = p;
    }
    __syncwarp();
    Tiles::add(dk, l.weights[0], l.tile[0], count);
    Tiles::add(dv, l.weights[1], l.tile[1], count);
  }

  Tiles::put(l.own[0] + l.mine, dk, 1);
  Tiles::put(l.own[1] + l.mine, dv, 1);
  __syncwarp();
  for (int r = 0; r < kOwnRows && warp * kOwnRows + r < rows; ++r) {
    const int row = first + warp * kOwnRows + r;
    store_row(static_cast<T*>(a.dk) + row * a.k_stride + at.g * D, l.own[0] + r * kStep, D,
              angles_of(shape, row, at.begin));
    store_row(static_cast<T*>(a.dv) + row * a.v_stride + at.g * D, l.own[1] + r * kStep, D);
  }
}

}  // namespace

template <>
void attention_backward(ThisBackend, const AttentionBackward& a, Stream stream) {
  const AttentionShape& shape = a.shape;
  if (shape.longest == 0) return;
  const int64_t items = shape.longest * (shape.H / shape.G), pairs = shape.S * shape.G;
  if (takes("attention_backward", a.kernel, "whole", shape, fits_one_block(a), kWholeBackwardDoes))
    return launch_in_one_block(a, stream);
  const bool mma = takes("attention_backward", a.kernel, "mma", shape, for_tensor_cores(a), kMmaDoes);
  if (!mma &&
      takes("attention_backward", a.kernel, "fma_whole", shape, fma_fits_one_block(shape, stream), kFmaWholeDoes))
    return launch_fma_in_one_block(a, stream);
  Scratch deltas("attention_backward", stream, shape.R * shape.H * int64_t{sizeof(float)});
  if (mma) return launch_on_tensor_cores(a, deltas.floats(), stream);
  with_float(shape.dtype, [&]<class T>(Type<T>) {
    with_quads("attention_backward", shape.D, [&]<int kQuads>(std::integral_constant<int, kQuads>) {
      const auto walk = [&](const char* name, auto kernel, int64_t rows) {
        const int warps = static_cast<int>(std::min<int64_t>(kMaxWarps, ceil_div(rows, kOwnRows)));
        const int64_t tiles = ceil_div(rows, warps * kOwnRows);
        const int64_t bytes = shared_floats(warps, FmaTiles<kQuads>::kStep) * int64_t{sizeof(float)};
        launch(name, kernel, {pairs * tiles, warps * kWarp, bytes, stream}, a, deltas.floats(), tiles);
      };
      walk("attention_dq", attention_dq_kernel<T, kQuads>, items);
      walk("attention_dkv", attention_dkv_kernel<T, kQuads>, shape.longest);
    });
  });
}

}  // namespace nanovlm::kernels
