// The CUDA vocabulary of kernel files. nvcc gets the CUDA runtime, any other compiler the executor in kernels/simt/.
//
//   launch("name", kernel<T>, {grid, block, shared_bytes, stream}, arguments...)     the only way to start a kernel
//   GPU_SHARED(float, tile, [32][33]);   GPU_SHARED_DYNAMIC(bf16, tiles);             the only ways to shared memory
//
// CUDA's own: threadIdx blockIdx blockDim gridDim, __syncthreads, __syncwarp, __shfl*_sync, __ballot_sync, __any_sync,
// __all_sync, atomicAdd/Min/Max/Exch/CAS, __threadfence, C's float functions, rsqrtf, min, max.
// PTX wrappers, of which simt/ptx.h says what each does: ld16 st16 ld8 st8, cp_async16 + cp_async_commit +
// cp_async_wait<N>, ldmatrix_x2/x4(_trans), mma_m16n8k16, ex2, to_bf16, pack_bf16, low_bf16, high_bf16.
// Below: warp_sum, warp_max, block_sum, block_max.
//
// The rules for kernel code are in docs/add-a-kernel.md.
#pragma once
#include "kernels/launch.h"
#include "kernels/types.h"
#if defined(__CUDACC__)
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/words.cuh"
#else
#include "kernels/simt/ptx.h"
#include "kernels/simt/words.h"
#if defined(NANOVLM_STAND_IN)
#include "kernels/stand_in/launch.h"
#else
#include "kernels/simt/launch.h"
#endif
#endif

namespace nanovlm::kernels::inline NANOVLM_WORDS {

constexpr int kWarp = 32;  // lanes
constexpr unsigned kFullMask = 0xffffffff;

// x in a tensor's dtype: float or bf16.
template <class T>
__device__ inline T round_to(float x) {
  if constexpr (sizeof(T) == 2)
    return to_bf16(x);
  else
    return x;
}

// The thread's number in its block, x fastest as the hardware forms warps.
__device__ inline int thread_in_block() {
  return static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
}
__device__ inline int threads_in_block() { return static_cast<int>(blockDim.x * blockDim.y * blockDim.z); }

// N neighbours as fp32, by one access where it has 8 or 16 bytes: N is 1, or a count that makes it so. Aligned to its
// size.
template <int N, class T>
__device__ inline Vec<float, N> load_floats(const T* from, Where where = Where::here()) {
  Vec<float, N> value;
  if constexpr (N == 1) {
    value[0] = static_cast<float>(*from);
  } else if constexpr (N * sizeof(T) == 8) {
    const Vec<T, N> raw = ld8(from, where);
    for (int i = 0; i < N; ++i) value[i] = static_cast<float>(raw[i]);
  } else {
    const Vec<T, N> raw = ld16(from, where);
    for (int i = 0; i < N; ++i) value[i] = static_cast<float>(raw[i]);
  }
  return value;
}
template <int N, class T>
__device__ inline void store_floats(T* to, const Vec<float, N>& value, Where where = Where::here()) {
  Vec<T, N> raw;
  for (int i = 0; i < N; ++i) raw[i] = round_to<T>(value[i]);
  if constexpr (N == 1) {
    *to = raw[0];
  } else if constexpr (N * sizeof(T) == 8) {
    st8(to, raw, where);
  } else {
    st16(to, raw, where);
  }
}

// The same bits on every lane, in the order of a butterfly. All 32 lanes take part.
__device__ inline float warp_sum(float value, Where where = Where::here()) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) value += shfl_xor(value, lanes, where);
  return value;
}
__device__ inline float warp_max(float value, Where where = Where::here()) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) value = fmaxf(value, shfl_xor(value, lanes, where));
  return value;
}

// The same bits on every thread of the block: warp sums, added by rising warp number. All threads take part; the block
// is whole warps.
__device__ inline float block_sum(float value, Where where = Where::here()) {
  GPU_SHARED(float, warp_sums, [32]);
  value = warp_sum(value, where);
  block_barrier(where);  // an earlier call's values may still be read
  if (thread_in_block() % kWarp == 0) warp_sums[thread_in_block() / kWarp] = value;
  block_barrier(where);
  float sum = 0;
  for (int w = 0; w < threads_in_block() / kWarp; ++w) sum += warp_sums[w];
  return sum;
}
__device__ inline float block_max(float value, Where where = Where::here()) {
  GPU_SHARED(float, warp_maxima, [32]);
  value = warp_max(value, where);
  block_barrier(where);  // an earlier call's values may still be read
  if (thread_in_block() % kWarp == 0) warp_maxima[thread_in_block() / kWarp] = value;
  block_barrier(where);
  float largest = warp_maxima[0];
  for (int w = 1; w < threads_in_block() / kWarp; ++w) largest = fmaxf(largest, warp_maxima[w]);
  return largest;
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
