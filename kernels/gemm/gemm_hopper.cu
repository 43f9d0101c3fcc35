// The matrix product of bf16 by wgmma, for Hopper GPUs.
//
// As in tile.cuh a block owns 128 x 128 sums and meets the operands in three stages of depth 64. Here one thread has
// the copy engine bring a stage, swizzled as the tensor cores want it, and each of two groups of four warps multiplies
// 64 x 128: a and b come from shared memory, no register holds them and no instruction moves them. While a stage is
// multiplied the next two are there or on their way; it is brought again once both groups have done with it. Two blocks
// fit a multiprocessor: one multiplies while the other waits or stores. Bound by arithmetic: the tensor cores read 96
// of the 128 bytes that shared memory gives in a clock.
#include "kernels/gemm/gemm.h"
#include "kernels/gemm/store.cuh"
#include "kernels/gemm/tile.cuh"
#include "kernels/hopper.cuh"

namespace nanovlm::kernels {
namespace {

constexpr int kRowBytes = kBoxColumns * sizeof(bf16), kPatternBytes = 8 * kRowBytes;
constexpr int kStageBytes = GemmTile::kStageEntries * sizeof(bf16);
constexpr int kGroupRows = 64;  // of a tile, that four warps own
static_assert(GemmTile::kDepth == kBoxColumns && GemmTile::kSize % kBoxColumns == 0);

// One operand: kAlongK as in GemmOperand. Its part of a stage is one box of 128 rows along k, or two boxes of 64 rows
// of k that lie side by side in the matrix.
template <bool kAlongK>
struct HopperOperand {
  static constexpr int kBoxRows = kAlongK ? GemmTile::kSize : GemmTile::kDepth;
  static constexpr int kBoxEntries = kBoxRows * kBoxColumns;

  __device__ static void copy(bf16* stage, const TensorMap& from, int outer, int k, uint64_t* arrived) {
    if constexpr (kAlongK) {
      copy_box(stage, from, outer, k, arrived);
    } else {
      for (int box = 0; box < GemmTile::kSize / kBoxColumns; ++box)
        copy_box(stage + box * kBoxEntries, from, k, outer + box * kBoxColumns, arrived);
    }
  }

  // Of what starts at `outer`, a multiple of 64, and `k`, one of 16.
  __device__ static uint64_t descriptor(uint32_t stage, int outer, int k) {
    constexpr int kBoxBytes = kBoxEntries * sizeof(bf16);
    const int offset =
        kAlongK ? outer * kRowBytes + k * int{sizeof(bf16)} : outer / kBoxColumns * kBoxBytes + k * kRowBytes;
    return matrix_descriptor(stage + static_cast<uint32_t>(offset), kAlongK ? 0 : kBoxBytes, kPatternBytes);
  }
};

// This thread's part of a group's 64 x 128 sums, into rows of kSumStep floats.
__device__ void store_sums(float* rows, const float (&d)[64]) {
  const int warp = thread_in_block() / kWarp, lane = thread_in_block() % kWarp;
  rows += (warp * 16 + lane / 4) * GemmTile::kSumStep + lane % 4 * 2;
#pragma unroll
  for (int j = 0; j < 16; ++j)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      st8(rows + 8 * half * GemmTile::kSumStep + 8 * j, Vec<float, 2>{d[4 * j + 2 * half], d[4 * j + 2 * half + 1]});
}

template <bool kTransposeA, bool kTransposeB>
__global__ void __launch_bounds__(GemmTile::kThreads, 2)
    gemm_hopper_kernel(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,
                       const StoreProduct epilogue, int64_t M, int64_t N, int64_t K) {
  using A = HopperOperand<!kTransposeA>;
  using B = HopperOperand<kTransposeB>;
  constexpr int kStages = GemmTile::kStages, kHalf = GemmTile::kStageEntries / 2;
  GPU_SHARED(uint64_t, arrived, [kStages]);
  GPU_SHARED_DYNAMIC(bf16, memory);
  const uint32_t past = shared_address(memory + 0) % kPatternBytes;
  bf16* const stages = memory + 0 + (kPatternBytes - past) % kPatternBytes / sizeof(bf16);
  const GemmPlace at(M, N);
  const int row = static_cast<int>(at.row), column = static_cast<int>(at.column);
  const int steps = static_cast<int>(ceil_div(K, GemmTile::kDepth));
  const auto copy = [&](int step) {
    if (thread_in_block() != 0 || step >= steps) return;
    bf16* const stage = stages + step % kStages * GemmTile::kStageEntries;
    uint64_t* const barrier = &arrived[step % kStages];
    arrive_expecting(barrier, kStageBytes);
    A::copy(stage, a, row, step * GemmTile::kDepth, barrier);
    B::copy(stage + kHalf, b, column, step * GemmTile::kDepth, barrier);
  };

  if (thread_in_block() == 0) {
    for (int stage = 0; stage < kStages; ++stage) arrivals_init(&arrived[stage], 1);
    fence_async_proxy();
  }
  __syncthreads();
  for (int step = 0; step < kStages; ++step) copy(step);

  float d[64] = {};
  const int group = thread_in_block() / (4 * kWarp);
  for (int step = 0; step < steps; ++step) {
    const uint32_t stage = shared_address(stages) + static_cast<uint32_t>(step % kStages * kStageBytes);
    wait_phase(&arrived[step % kStages], step / kStages % 2);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < GemmTile::kDepth; k += 16)
      wgmma_m64n128k16<kTransposeA, !kTransposeB>(d, A::descriptor(stage, group * kGroupRows, k),
                                                  B::descriptor(stage + kStageBytes / 2, 0, k));
    wgmma_commit();
    wgmma_wait<0>();  // keeping a group under way makes ptxas serialise them all
    __syncthreads();  // both groups have done with this stage
    copy(step + kStages);
  }
  float* const rows = reinterpret_cast<float*>(stages);
  store_sums(rows, d);
  __syncthreads();
  finish_rows(rows, at, M, epilogue);
}

template <bool kAlongK>
TensorMap map_of(const char* operand, const void* data, int64_t outer, int64_t K) {
  const int64_t rows = kAlongK ? outer : K, columns = kAlongK ? K : outer;
  if (columns % 8 != 0 || !aligned(data))
    throw std::invalid_argument(std::string("gemm_hopper: rows of ") + operand + " have " + std::to_string(columns) +
                                " entries" + (aligned(data) ? "" : " and do not start at a multiple of 16 bytes") +
                                ", but must have a multiple of 8, aligned");
  return tensor_map("gemm_hopper", static_cast<const bf16*>(data), rows, columns, HopperOperand<kAlongK>::kBoxRows);
}

}  // namespace

template <>
void gemm_hopper(ThisBackend backend, const Matmul& m, Stream stream) {
  check_gemm("gemm_hopper", m);
  if (!hopper()) throw std::runtime_error("gemm_hopper: this GPU is not of compute capability 9.0");
  if (m.M == 0 || m.N == 0 || m.K == 0) return gemm(backend, m, stream);
  const auto multiply = [&]<bool kTransposeA, bool kTransposeB>() {
    const LaunchShape shape{ceil_div(m.M, GemmTile::kSize) * ceil_div(m.N, GemmTile::kSize), GemmTile::kThreads,
                            GemmTile::kSharedBytes + kPatternBytes, stream};
    launch("gemm_hopper", gemm_hopper_kernel<kTransposeA, kTransposeB>, shape, map_of<!kTransposeA>("a", m.a, m.M, m.K),
           map_of<kTransposeB>("b", m.b, m.N, m.K), StoreProduct(m), m.M, m.N, m.K);
  };
  if (m.transpose_a)
    m.transpose_b ? multiply.operator()<true, true>() : multiply.operator()<true, false>();
  else
    m.transpose_b ? multiply.operator()<false, true>() : multiply.operator()<false, false>();
}

}  // namespace nanovlm::kernels
