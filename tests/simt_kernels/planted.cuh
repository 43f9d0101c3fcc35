// Kernels with one planted bug each. Where a report must name a line, a constant beside the kernel holds its number.
#pragma once
#include "kernels/device.cuh"

namespace nanovlm::kernels {

constexpr int kThreads = 64;  // of each kernel below: two warps

// ---- missing barriers

inline constexpr int kTileReadLine = __LINE__ + 7;
__global__ void tile_read_without_barrier(const float* x, float* y) {
  GPU_SHARED(float, tile, [kThreads]);
  const int i = static_cast<int>(threadIdx.x);
  tile[i] = 0;
  __syncthreads();
  tile[i] = x[i];
  y[i] = tile[kThreads - 1 - i];
}

inline constexpr int kTileReuseLine = __LINE__ + 6;
__global__ void tile_reuse_without_barrier(const float* x, float* y, int tiles) {
  GPU_SHARED(float, tile, [kThreads]);
  const int i = static_cast<int>(threadIdx.x);
  float sum = 0;
  for (int t = 0; t < tiles; ++t) {
    tile[i] = x[t * kThreads + i];
    __syncthreads();
    sum += tile[kThreads - 1 - i];
  }
  y[i] = sum;
}

// Sound in the order of lanes, and wrong on a GPU: lanes do not run in step.
inline constexpr int kNoSyncwarpLine = __LINE__ + 7;
__global__ void warp_exchange_without_syncwarp(const float* x, float* y) {
  GPU_SHARED(float, tile, [kThreads]);
  const int i = static_cast<int>(threadIdx.x);
  tile[i] = 0;
  __syncwarp();
  tile[i] = x[i];
  y[i] = tile[i / kWarp * kWarp + (i + 1) % kWarp];
}

inline constexpr int kDivergentLine = __LINE__ + 4;
__global__ void divergent_barrier(float* y) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < 40) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  y[i] = 1;
}

inline constexpr int kEarlyExitLine = __LINE__ + 4;
__global__ void early_exit(float* y, int n) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= n) return;
  __syncthreads();
  y[i] = 1;
}

inline constexpr int kExitBeforeShuffleLine = __LINE__ + 4;
__global__ void exit_before_shuffle(float* y, int n) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= n) return;
  y[i] = __shfl_xor_sync(kFullMask, 1.0f, 1);
}

// ---- copies and contents of shared memory

inline constexpr int kMissingWaitLine = __LINE__ + 7;
__global__ void missing_wait(const float* x, float* y) {
  GPU_SHARED(float, tile, [4 * kThreads]);
  const int i = static_cast<int>(threadIdx.x);
  cp_async16(&tile[4 * i], x + 4 * i);
  cp_async_commit();
  __syncthreads();
  y[i] = tile[i];
}

inline constexpr int kUnwrittenLine = __LINE__ + 6;
__global__ void unwritten_read(const float* x, float* y) {
  GPU_SHARED(float, tile, [kThreads]);
  const int i = static_cast<int>(threadIdx.x);
  if (i < kThreads - 1) tile[i] = x[i];
  __syncthreads();
  y[i] = tile[kThreads - 1 - i];
}

// ---- global memory

inline constexpr int kMissingAtomicLine = __LINE__ + 2;
__global__ void missing_atomic(float* y) {
  if (threadIdx.x == 0) y[0] += 1;
}

inline constexpr int kGlobalWriteLine = __LINE__ + 3;
__global__ void write_past_the_end(float* y, int n) {
  const int i = static_cast<int>(threadIdx.x);
  if (i <= n) y[i] = 1;
}

inline constexpr int kGlobalReadLine = __LINE__ + 3;
__global__ void read_before_the_start(const float* x, float* y) {
  const int i = static_cast<int>(threadIdx.x);
  y[i] = x[i - 1];
}

// ---- bounds of shared memory, alignment, masks

inline constexpr int kSharedIndexLine = __LINE__ + 4;
__global__ void shared_index_out_of_bounds(float* y) {
  GPU_SHARED(float, tile, [2][kThreads]);
  const int i = static_cast<int>(threadIdx.x);
  tile[1][i + 1] = 0;
  y[i] = 1;
}

inline constexpr int kSecondDynamicLine = __LINE__ + 3;
__global__ void two_dynamic_arrays(float* y) {
  GPU_SHARED_DYNAMIC(float, first);
  GPU_SHARED_DYNAMIC(float, second);
  const int i = static_cast<int>(threadIdx.x);
  first[i] = 1, second[i] = 2;
  y[i] = first[i];
}

inline constexpr int kSharedPointerLine = __LINE__ + 5;
__global__ void shared_pointer_out_of_bounds(float* y) {
  GPU_SHARED(float, tile, [kThreads]);
  const int i = static_cast<int>(threadIdx.x);
  float* next = &tile[i] + 1;
  *next = 1;
  y[i] = 1;
}

inline constexpr int kMisalignedLine = __LINE__ + 3;
__global__ void misaligned_load(const float* x, float* y) {
  const int i = static_cast<int>(threadIdx.x);
  y[i] = ld16(x + i)[0];
}

// A GPU faults on these; a host does not.
inline constexpr int kMisalignedPairLine = __LINE__ + 3;
__global__ void misaligned_pair(const bf16* x, unsigned* y) {
  const int i = static_cast<int>(threadIdx.x);
  y[i] = *reinterpret_cast<const unsigned*>(x + i);
}

inline constexpr int kMisalignedStoreLine = __LINE__ + 3;
__global__ void misaligned_store(float* y) {
  const int i = static_cast<int>(threadIdx.x);
  *reinterpret_cast<int64_t*>(y + 2 * i + 1) = 0;
}

inline constexpr int kMisalignedSharedLine = __LINE__ + 6;
__global__ void misaligned_in_shared_memory(unsigned* y) {
  GPU_SHARED(bf16, tile, [2 * kThreads + 2]);
  const int i = static_cast<int>(threadIdx.x);
  tile[2 * i + 1] = bf16(1.0f), tile[2 * i + 2] = bf16(1.0f);
  const bf16* mine = &tile[2 * i + 1];
  y[i] = *reinterpret_cast<const unsigned*>(mine);
}

inline constexpr int kOutsideMaskLine = __LINE__ + 3;
__global__ void shuffle_from_outside_the_mask(float* y) {
  const int i = static_cast<int>(threadIdx.x);
  if (i % kWarp < 16) y[i] = __shfl_sync(0x0000ffff, 1.0f, 20);
}

inline constexpr int kNotInMaskLine = __LINE__ + 3;
__global__ void shuffle_with_a_mask_of_others(float* y) {
  const int i = static_cast<int>(threadIdx.x);
  y[i] = __shfl_xor_sync(0x0000ffff, 1.0f, 1);
}

// ---- waiting

inline constexpr int kAtomicSpinLine = __LINE__ + 4;
__global__ void sync_of_the_grid(int* arrived) {
  if (threadIdx.x != 0) return;
  atomicAdd(arrived, 1);
  while (atomicAdd(arrived, 0) < static_cast<int>(gridDim.x)) continue;
}

inline constexpr int kVolatileSpinLine = __LINE__ + 4;
__global__ void sync_of_the_grid_by_stores(volatile int* arrived) {
  if (threadIdx.x != 0) return;
  arrived[blockIdx.x] = 1;
  while (arrived[(blockIdx.x + 1) % gridDim.x] == 0) continue;
}

// One thread waits for another of its own block: allowed by no rule, but it must not hang.
__global__ void spin_on_another_thread(int* flag) {
  if (threadIdx.x == 0)
    while (atomicAdd(flag, 0) == 0) continue;
  if (threadIdx.x == blockDim.x - 1) atomicAdd(flag, 1);
}

}  // namespace nanovlm::kernels
