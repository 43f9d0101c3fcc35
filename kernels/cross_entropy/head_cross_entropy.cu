// The head's cross entropy on a GPU. bf16: the product (kernels/gemm/tile.cuh) ends in statistics of its tiles, from
// which a small kernel makes each row's maximum and sum; where a gradient is asked for a second product makes the same
// logits again and ends in their slopes. Making a logit twice takes 2 C multiply-adds more, and spares writing it once
// and reading it twice, 12 bytes in fp32: for C = 576 about as long at the rates of an H100, without their memory.
// Bound by arithmetic. fp32: a library's product, then cross_entropy.
#include "kernels/cross_entropy/head_cross_entropy.h"

#include "kernels/cross_entropy/finite.cuh"
#include "kernels/elements.cuh"
#include "kernels/gemm/tile.cuh"

namespace nanovlm::kernels {
namespace {

// exp(logits - max), added up. Nothing seen is {-inf, 0}.
struct MaxSum {
  float max, sum;
};

// What a tile says of each of its rows.
struct TileStatistics {
  MaxSum* tiles;     // [R, tile columns]
  float* at_target;  // [R]
  const int32_t* targets;
  int64_t V;

  __device__ void operator()(int64_t row, int64_t column, const Vec<float, 4>& logits) const {
    const int target = targets[row];
    float max = -INFINITY, sum = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (column + i == target) at_target[row] = logits[i];
      if (column + i < V) max = fmaxf(max, logits[i]);
    }
    max = warp_max(max);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (column + i < V) sum += expf(logits[i] - finite(max));
    sum = warp_sum(sum);
    if (column % GemmTile::kSize == 0)
      tiles[row * ceil_div(V, GemmTile::kSize) + column / GemmTile::kSize] = {max, sum};
  }
};

struct Slopes {
  bf16* dlogits;
  const MaxSum* rows;
  const int32_t* targets;
  int64_t V;
  float scale;
  bool vectors;

  template <int W>
  __device__ void store(int64_t row, int64_t column, Vec<float, W> logits) const {
    const MaxSum total = rows[row];
    const int target = targets[row];
    const float shift = finite(total.max), inverse = 1 / total.sum;
    for (int i = 0; i < W; ++i)
      logits[i] = scale * (expf(logits[i] - shift) * inverse - (column + i == target ? 1.0f : 0));
    store_floats<W>(dlogits + row * V + column, logits);
  }

  __device__ void operator()(int64_t row, int64_t column, const Vec<float, 4>& logits) const {
    if (vectors) {
      if (column < V) store<4>(row, column, logits);
      return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (column + i < V) store<1>(row, column + i, Vec<float, 1>{logits[i]});
  }
};

constexpr int kThreads = 256, kRowsABlock = kThreads / kWarp;

// A warp joins what the tiles say of a row.
__global__ void join_tiles_kernel(const MaxSum* tiles, const float* at_target, MaxSum* rows, float* loss, int64_t R,
                                  int64_t count) {
  const int64_t row = int64_t(blockIdx.x) * kRowsABlock + thread_in_block() / kWarp;
  if (row >= R) return;  // a whole warp
  const int lane = thread_in_block() % kWarp;
  // Both numbers by one access, where one alone would do too: a sector has them next to each other.
  const auto tile = [&](int64_t i) { return load_floats<2>(&tiles[row * count + i].max); };
  float max = -INFINITY, sum = 0;
  for (int64_t i = lane; i < count; i += kWarp) max = fmaxf(max, tile(i)[0]);
  max = warp_max(max);
  for (int64_t i = lane; i < count; i += kWarp) {
    const Vec<float, 2> statistics = tile(i);
    sum += statistics[1] * expf(statistics[0] - finite(max));
  }
  sum = warp_sum(sum);
  if (lane != 0) return;
  rows[row] = {max, sum};
  loss[row] = max + logf(sum) - at_target[row];
}

}  // namespace

template <>
void head_cross_entropy(ThisBackend backend, const HeadCrossEntropy& a, Stream stream) {
  if (head_stores_logits(true, a.dtype)) return head_cross_entropy_stored(backend, a, stream);
  if (a.R == 0) return;
  const int64_t tile_columns = ceil_div(a.V, GemmTile::kSize);
  Scratch scratch("head_cross_entropy", stream, (2 * tile_columns + 3) * a.R * int64_t{sizeof(float)});
  MaxSum* const tiles = reinterpret_cast<MaxSum*>(scratch.floats());
  MaxSum* const rows = tiles + a.R * tile_columns;
  float* const at_target = reinterpret_cast<float*>(rows + a.R);
  const auto product = [&](const char* name, const auto& epilogue) {
    launch_gemm<false, true>(name, static_cast<const bf16*>(a.h), static_cast<const bf16*>(a.weight), epilogue, a.R,
                             a.V, a.C, stream);
  };
  product("head_cross_entropy_statistics", TileStatistics{tiles, at_target, a.targets, a.V});
  launch("head_cross_entropy_join", join_tiles_kernel, {ceil_div(a.R, kRowsABlock), kThreads, 0, stream}, tiles,
         at_target, rows, a.loss, a.R, tile_columns);
  if (a.dlogits)
    product("head_cross_entropy_slopes",
            Slopes{static_cast<bf16*>(a.dlogits), rows, a.targets, a.V, a.scale, a.V % 4 == 0 && aligned(a.dlogits)});
}

}  // namespace nanovlm::kernels
