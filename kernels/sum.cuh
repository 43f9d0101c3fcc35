// Sums over a whole array, the same to the bit on every run: blocks add chunks of a fixed size in fp64, a last block
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

// sums[b] = sum of chunk b of x, or of its squares
template <bool kSquares>
__global__ void chunk_sums_kernel(const float* x, double* sums, int64_t n, bool vectors) {
  const int64_t first = int64_t(blockIdx.x) * kSumChunk, left = min(kSumChunk, n - first);
  double sum = 0;
  for_elements<4>(left, vectors, threadIdx.x, kSumThreads, [&]<int W>(Width<W>, int64_t i) {
    const Vec<float, W> values = load_floats<W>(x + first + i);
    for (int j = 0; j < W; ++j) {
      const double value = values[j];
      sum += kSquares ? value * value : value;
    }
  });
  sum = block_sum_fp64(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// *y = (accumulate ? *y : 0) + the sum of `sums`
template <class T>
__global__ void total_kernel(const double* sums, T* y, int64_t chunks, bool accumulate) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < chunks; i += kSumThreads) sum += sums[i];
  sum = block_sum_fp64(sum);
  if (threadIdx.x == 0) *y = static_cast<T>((accumulate ? *y : 0) + sum);
}

template <bool kSquares, class T>
void sum_in_chunks(const char* name, const float* x, T* y, int64_t n, bool accumulate, Stream stream) {
  const int64_t chunks = ceil_div(n, kSumChunk);
  Scratch scratch(name, stream, std::max(chunks, int64_t{1}) * int64_t{sizeof(double)});
  void* const sums = scratch.floats();
  if (chunks > 0) launch(name, chunk_sums_kernel<kSquares>, {chunks, kSumThreads, 0, stream}, x, sums, n, aligned(x));
  launch("total", total_kernel<T>, {1, kSumThreads, 0, stream}, sums, y, chunks, accumulate);
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
