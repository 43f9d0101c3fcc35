// Lines of a matrix added up, as other kernels leave them, in an order that their number alone fixes. A thread owns a
// column; of many lines, eight threads share one. Bound by memory.
#pragma once
#include "kernels/device.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {
namespace {

constexpr int kLineColumns = 128, kLineShares = 8;

// y[n] += the sum over lines of x[line][n]: thread (n, share) adds lines share, share + blockDim.y, ...
__global__ void add_lines_kernel(const float* x, float* y, int64_t lines, int64_t N) {
  GPU_SHARED(float, sums, [kLineShares][kLineColumns]);
  const int64_t n = int64_t(blockIdx.x) * kLineColumns + threadIdx.x;
  float sum = 0;
#pragma unroll 4
  for (int64_t line = threadIdx.y; n < N && line < lines; line += blockDim.y) sum += x[line * N + n];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || n >= N) return;
  for (int share = 1; share < static_cast<int>(blockDim.y); ++share) sum += sums[share][threadIdx.x];
  y[n] += sum;
}

void add_lines(const char* name, const float* x, float* y, int64_t lines, int64_t N, Stream stream) {
  const int64_t shares = lines > 2 * kLineShares ? kLineShares : 1;
  launch(name, add_lines_kernel, {ceil_div(N, kLineColumns), {kLineColumns, shares}, 0, stream}, x, y, lines, N);
}

}  // namespace
}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
