// Attention on a GPU: bf16 of the usual head sizes by tensor cores (mma_whole_forward.cuh for short segments,
// mma_forward.cuh; wgmma_forward.cuh where it is asked for), the rest by fp32 multiply-adds, for any head size up to
// 128 and any alignment:
//
// A block owns a tile of queries of one segment and key/value head (items of rows.cuh), a warp 8 of them. Keys, rotated
// on the way, and values pass through shared memory in tiles of 32; the softmax runs along. q, k and rotated values of
// bf16 are rounded, probabilities stay fp32. Bound by shared-memory reads: 9 for 8 quads of multiply-adds.
#include "kernels/attention/fma_tiles.cuh"
#include "kernels/attention/mma_forward.cuh"
#include "kernels/attention/mma_whole_forward.cuh"
#include "kernels/attention/wgmma_forward.cuh"

namespace nanovlm::kernels {
namespace {

constexpr int kMaxWarps = 4;

int64_t shared_floats(int warps, int step) { return 2 * kTileRows * step + warps * kOwnRows * (step + kWeightStep); }

template <class T, int kQuads>
__global__ void __launch_bounds__(kMaxWarps* kWarp, 4) attention_kernel(const Attention a, int tiles) {
  using Tiles = FmaTiles<kQuads>;
  constexpr int kStep = Tiles::kStep;
  const AttentionShape& shape = a.shape;
  const int D = shape.D, warps = threads_in_block() / kWarp, warp = thread_in_block() / kWarp;
  const Place at = place_of(shape, tiles);
  const int first = at.tile * warps * kOwnRows, items = min(warps * kOwnRows, at.items() - first);
  if (items <= 0) return;

  GPU_SHARED_DYNAMIC(float, memory);
  float* keys = memory + 0;
  float* values = keys + kTileRows * kStep;
  float* own = values + kTileRows * kStep + warp * kOwnRows * kStep;  // of the warp
  float* weights = memory + (2 * kTileRows + warps * kOwnRows) * kStep + thread_in_block() / kPeers * kWeightStep;

  for (int r = 0; r < kOwnRows; ++r) {
    const int item = warp * kOwnRows + r;
    const Query query = query_of(at, first + item);
    const T* q = item < items ? static_cast<const T*>(a.q) + query.in(a.q_stride, D) : nullptr;
    load_row(own + r * kStep, Tiles::kWidth, q, D, q ? angles_of(shape, query.row, at.begin) : Angles{});
  }

  const Visible visible = visible_keys(shape, at.begin, at.end);
  const Query mine = query_of(at, first + thread_in_block() / kPeers);
  const bool keyless = visible.keyless(shape, mine.row, at.end);
  const int my_end = shape.causal ? min(mine.row + 1, at.end) : at.end;
  const int end = shape.causal ? query_of(at, first + items - 1).row + 1 : at.end;
  float* my_own = own + thread_in_block() % kWarp / kPeers * kStep;
  SoftmaxRow<kQuads> row;

  for (int key = at.begin; key < end; key += kTileRows) {
    const int count = min(kTileRows, end - key);
    __syncthreads();  // the last tile has been read
    for (int r = warp; r < kTileRows; r += warps) {
      const T* k = r < count ? static_cast<const T*>(a.k) + (key + r) * a.k_stride + at.g * D : nullptr;
      const T* v = r < count ? static_cast<const T*>(a.v) + (key + r) * a.v_stride + at.g * D : nullptr;
      load_row(keys + r * kStep, Tiles::kWidth, k, D, k ? angles_of(shape, key + r, at.begin) : Angles{});
      load_row(values + r * kStep, Tiles::kWidth, v, D);
    }
    const unsigned bits = visible_bits(shape, key, at.end);
    __syncthreads();
    row.meet(my_own, keys, values, count, (keyless ? kFullMask : bits) & bits_below(my_end, key),
             keyless ? 0.0f : shape.scale, weights);
  }

  const float sum = peers_sum(row.sum);
  Tiles::put(my_own, row.o, 1 / sum);
  if (a.lse && thread_in_block() / kPeers < items && thread_in_block() % kPeers == 0)
    a.lse[int64_t(mine.row) * shape.H + mine.head] = row.max + logf(sum);
  __syncwarp();
  for (int r = 0; r < kOwnRows && warp * kOwnRows + r < items; ++r) {
    const Query query = query_of(at, first + warp * kOwnRows + r);
    store_row(static_cast<T*>(a.o) + query.in(int64_t(shape.H) * D, D), own + r * kStep, D);
  }
}

}  // namespace

template <>
void attention(ThisBackend, const Attention& a, Stream stream) {
  const AttentionShape& shape = a.shape;
  const int64_t items = shape.longest * (shape.H / shape.G);
  if (items == 0) return;
  if (a.kernel && takes("attention", a.kernel, "wgmma", shape, fits_wgmma(a), kWgmmaDoes))
    return launch_wgmma(a, stream);
  if (takes("attention", a.kernel, "whole", shape, fits_one_block(a), kWholeDoes))
    return launch_in_one_block(a, stream);
  if (takes("attention", a.kernel, "mma", shape, for_tensor_cores(a), kMmaDoes))
    return launch_on_tensor_cores(a, stream);
  const int warps = static_cast<int>(std::min<int64_t>(kMaxWarps, ceil_div(items, kOwnRows)));
  const int64_t tiles = ceil_div(items, warps * kOwnRows);
  with_float(shape.dtype, [&]<class T>(Type<T>) {
    with_quads("attention", shape.D, [&]<int kQuads>(std::integral_constant<int, kQuads>) {
      const int64_t bytes = shared_floats(warps, FmaTiles<kQuads>::kStep) * int64_t{sizeof(float)};
      launch("attention", attention_kernel<T, kQuads>, {shape.S * shape.G * tiles, warps * kWarp, bytes, stream}, a,
             tiles);
    });
  });
}

}  // namespace nanovlm::kernels
