// Sums over whole arrays, the same to the bit on every run: blocks add chunks of a fixed size in fp64, a last block
// adds the chunks' sums. Bound by memory.
#pragma once
#include "kernels/elements.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

constexpr int kSumThreads = 256;
constexpr int64_t kSumChunk = 16384;

// On every thread, by rising warp number. All threads of a block of kSumThreads take part, once a kernel.
__device__ inline double block_sum_fp64(double value) {
  GPU_SHARED(double, warp_sums, [kSumThreads / kWarp]);
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) value += shfl_xor(value, lanes);
  if (thread_in_block() % kWarp == 0) warp_sums[thread_in_block() / kWarp] = value;
  __syncthreads();
  double sum = 0;
  for (int w = 0; w < kSumThreads / kWarp; ++w) sum += warp_sums[w];
  return sum;
}

// The sum of n elements, or of their squares, on every thread of a block.
template <bool kSquares>
__device__ double chunk_sum(const float* x, int64_t n) {
  double sum = 0;
  for_elements<4>(n, aligned(x), threadIdx.x, kSumThreads, [&]<int W>(Width<W>, int64_t i) {
    const Vec<float, W> values = load_floats<W>(x + i);
    for (int j = 0; j < W; ++j) {
      const double value = values[j];
      sum += kSquares ? value * value : value;
    }
  });
  return block_sum_fp64(sum);
}

// The sum of chunks' sums, on every thread of a block.
__device__ inline double total_of(const double* sums, int64_t chunks) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < chunks; i += kSumThreads) sum += sums[i];
  return block_sum_fp64(sum);
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
