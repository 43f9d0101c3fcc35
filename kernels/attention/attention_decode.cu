// Attention of one new token over a cache, on a GPU. A block owns up to 8 query heads of one sequence and key/value
// head; its warps take tiles of 32 keys in turn, each with its own softmax, which are joined in the order of warps.
// Bound by memory.
#include "kernels/attention/fma_tiles.cuh"

namespace nanovlm::kernels {
namespace {

constexpr int kMaxWarps = 4;

// A warp's own keys, values and weights; then what it hands over: max, sum and o of each head.
template <int kQuads>
constexpr int kWarpFloats = 2 * kTileRows* FmaTiles<kQuads>::kStep + kOwnRows* kWeightStep;

template <class T, int kQuads>
__global__ void __launch_bounds__(kMaxWarps* kWarp, 4) attention_decode_kernel(const AttentionDecode a, int parts) {
  using Tiles = FmaTiles<kQuads>;
  constexpr int kStep = Tiles::kStep;
  const int lane = thread_in_block() % kWarp, warp = thread_in_block() / kWarp, warps = threads_in_block() / kWarp;
  const int pair = static_cast<int>(blockIdx.x) / parts, b = pair / a.G, g = pair % a.G;
  const int first = static_cast<int>(blockIdx.x) % parts * kOwnRows, n = a.H / a.G, D = a.D;
  const int heads = min(kOwnRows, n - first), length = a.lengths[b];
  const int64_t q = (int64_t(b) * a.H + g * n + first) * D;

  GPU_SHARED_DYNAMIC(float, memory);
  GPU_SHARED(float, maxima, [kMaxWarps][kOwnRows]);
  GPU_SHARED(float, sums, [kMaxWarps][kOwnRows]);
  float* own = memory + 0;
  float* keys = own + kOwnRows * kStep + warp * kWarpFloats<kQuads>;
  float* values = keys + kTileRows * kStep;
  float* weights = values + kTileRows * kStep + lane / kPeers * kWeightStep;
  for (int r = warp; r < kOwnRows; r += warps)
    load_row(own + r * kStep, Tiles::kWidth, r < heads ? static_cast<const T*>(a.q) + q + r * D : nullptr, D);
  __syncthreads();

  SoftmaxRow<kQuads> row;
  for (int key = warp * kTileRows; key < length; key += warps * kTileRows) {
    __syncwarp();  // the last tile has been read
    for (int r = 0; r < kTileRows; ++r) {
      const int64_t at = ((b * a.capacity + key + r) * a.G + g) * D;
      const bool held = key + r < length;
      load_row(keys + r * kStep, Tiles::kWidth, held ? static_cast<const T*>(a.k) + at : nullptr, D);
      load_row(values + r * kStep, Tiles::kWidth, held ? static_cast<const T*>(a.v) + at : nullptr, D);
    }
    __syncwarp();
    row.meet(own + lane / kPeers * kStep, keys, values, min(kTileRows, length - key), bits_below(length, key), a.scale,
             weights);
  }

  const float sum = peers_sum(row.sum);
  __syncwarp();  // the last values have been read: their place takes o
  Tiles::put(values + lane / kPeers * kStep, row.o, 1);
  if (lane % kPeers == 0) maxima[warp][lane / kPeers] = row.max, sums[warp][lane / kPeers] = sum;
  __syncthreads();
  for (int r = warp; r < heads; r += warps) {
    float largest = -INFINITY, total = 0;
    for (int w = 0; w < warps; ++w) largest = fmaxf(largest, maxima[w][r]);
    for (int w = 0; w < warps; ++w) total += sums[w][r] * expf(maxima[w][r] - largest);
    const float* parts_of_o = own + (kOwnRows + kTileRows + r) * kStep;
    for (int d = lane; d < D; d += kWarp) {
      float o = 0;
      for (int w = 0; w < warps; ++w) o += parts_of_o[w * kWarpFloats<kQuads> + d] * expf(maxima[w][r] - largest);
      static_cast<T*>(a.o)[q + r * D + d] = round_to<T>(o / total);
    }
  }
}

}  // namespace

template <>
void attention_decode(ThisBackend, const AttentionDecode& a, Stream stream) {
  if (a.B == 0) return;
  const int64_t parts = ceil_div(a.H / a.G, kOwnRows);
  const int64_t warps = std::min<int64_t>(a.D > 64 ? 2 : kMaxWarps, ceil_div(a.capacity, kTileRows));
  with_float(a.dtype, [&]<class T>(Type<T>) {
    with_quads("attention_decode", a.D, [&]<int kQuads>(std::integral_constant<int, kQuads>) {
      const int64_t floats = kOwnRows * FmaTiles<kQuads>::kStep + warps * kWarpFloats<kQuads>;
      launch("attention_decode", attention_decode_kernel<T, kQuads>,
             {a.B * a.G * parts, warps * kWarp, floats * int64_t{sizeof(float)}, stream}, a, parts);
    });
  });
}

}  // namespace nanovlm::kernels
