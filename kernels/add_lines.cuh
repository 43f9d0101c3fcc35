// Lines of a matrix added up, in an order that does not depend on the launch. A thread owns a column: for few lines, as
// other kernels leave them. Bound by memory.
#pragma once
#include "kernels/device.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {
namespace {

// sums[n] = x[0][n] + x[1][n] + ..., in this order, and y[n] += that sum. Either may be null.
__global__ void add_lines_kernel(const float* x, float* y, float* sums, int64_t lines, int64_t N) {
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= N) return;
  float sum = 0;
  for (int64_t line = 0; line < lines; ++line) sum += x[line * N + n];
  if (y) y[n] += sum;
  if (sums) sums[n] = sum;
}

void add_lines(const char* name, const float* x, float* y, float* sums, int64_t lines, int64_t N, Stream stream) {
  launch(name, add_lines_kernel, {ceil_div(N, 128), 128, 0, stream}, x, y, sums, lines, N);
}

}  // namespace
}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
