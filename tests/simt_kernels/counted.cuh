// Kernels whose cost on the hardware is known by counting on paper.
#pragma once
#include "kernels/device.cuh"

namespace nanovlm::kernels {

__global__ void copy_with_stride(const float* x, float* y, int stride) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  y[i] = x[i * stride];
}

// Reads columns of a tile of 32 rows of 32 + kPad floats: without padding all lanes meet in one bank.
template <int kPad>
__global__ void transpose_tile(const float* x, float* y) {
  GPU_SHARED(float, tile, [32][32 + kPad]);
  const int lane = static_cast<int>(threadIdx.x), warp = static_cast<int>(threadIdx.y);
  tile[warp][lane] = x[warp * 32 + lane];
  __syncthreads();
  y[warp * 32 + lane] = tile[lane][warp];
}

__global__ void half_of_the_lanes(const float* x, float* y) {
  const int i = static_cast<int>(threadIdx.x);
  if (i % 2 == 0) y[i] = x[i];
}

struct Wide {
  float entries[24];
};

// Accesses of 96 bytes a lane.
__global__ void copy_wide(const Wide* x, Wide* y) {
  GPU_SHARED(Wide, tile, [32]);
  const int i = static_cast<int>(threadIdx.x);
  tile[i] = x[i];
  __syncwarp();
  y[i] = tile[i];
}

}  // namespace nanovlm::kernels
