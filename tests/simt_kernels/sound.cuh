// Correct kernels of the shapes that matter: a reduction, a pipelined copy, a tensor-core product.
#pragma once
#include "kernels/device.cuh"

namespace nanovlm::kernels {

// sums[b] = sum of row b of x; one block a row.
__global__ void row_sums(const float* x, float* sums, int C) {
  float sum = 0;
  for (int c = thread_in_block(); c < C; c += threads_in_block()) sum += x[blockIdx.x * C + c];
  sum = block_sum(sum);
  if (thread_in_block() == 0) sums[blockIdx.x] = sum;
}

constexpr int kTileFloats = 128;

// y[i] = sum over tiles of x[tile][kTileFloats - 1 - i]: double-buffered cp.async; each thread reads what others
// copied. One block of 32 threads copies 4 floats each.
__global__ void reversed_tile_sums(const float* x, float* y, int tiles) {
  GPU_SHARED(float, buffer, [2][kTileFloats]);
  const int thread = static_cast<int>(threadIdx.x);
  float sum[4] = {};
  cp_async16(&buffer[0][4 * thread], x + 4 * thread);
  cp_async_commit();
  for (int tile = 0; tile < tiles; ++tile) {
    if (tile + 1 < tiles) cp_async16(&buffer[(tile + 1) % 2][4 * thread], x + (tile + 1) * kTileFloats + 4 * thread);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    for (int i = 0; i < 4; ++i) sum[i] += buffer[tile % 2][kTileFloats - 1 - 4 * thread - i];
    __syncthreads();  // the next turn copies over what others may still be reading
  }
  for (int i = 0; i < 4; ++i) y[4 * thread + i] = sum[i];
}

// c [M, N] = a [M, K] b [K, N], row-major bf16, fp32 sums. A block of 4 warps owns 32 x 32 of c and walks K by 16
// through two buffers. M, N, K are multiples of 32, 32, 16.
constexpr int kGemmTile = 32, kGemmDepth = 16, kGemmPad = 8;

__global__ void gemm(const bf16* a, const bf16* b, float* c, int N, int K) {
  GPU_SHARED(bf16, a_tile, [2][kGemmTile][kGemmDepth + kGemmPad]);
  GPU_SHARED(bf16, b_tile, [2][kGemmDepth][kGemmTile + kGemmPad]);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  const int row0 = static_cast<int>(blockIdx.y) * kGemmTile, column0 = static_cast<int>(blockIdx.x) * kGemmTile;

  const auto copy = [&](int k0, int stage) {
    if (thread < 64) {
      const int row = thread / 2, k = thread % 2 * 8;
      cp_async16(&a_tile[stage][row][k], a + (row0 + row) * K + k0 + k);
    } else {
      const int k = (thread - 64) / 4, column = thread % 4 * 8;
      cp_async16(&b_tile[stage][k][column], b + (k0 + k) * N + column0 + column);
    }
  };

  float d[2][4] = {};
  copy(0, 0);
  cp_async_commit();
  for (int step = 0; step < K / kGemmDepth; ++step) {
    if ((step + 1) * kGemmDepth < K) copy((step + 1) * kGemmDepth, (step + 1) % 2);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    uint32_t a_part[4], b_part[4];
    ldmatrix_x4(a_part, &a_tile[step % 2][warp / 2 * 16 + lane % 16][lane / 16 * 8]);
    ldmatrix_x4_trans(b_part, &b_tile[step % 2][lane % 16][warp % 2 * 16 + lane / 16 * 8]);
    for (int half = 0; half < 2; ++half) {
      const uint32_t b_half[2] = {b_part[2 * half], b_part[2 * half + 1]};
      mma_m16n8k16(d[half], a_part, b_half);
    }
    __syncthreads();  // the next turn copies over what others may still be reading
  }

  for (int half = 0; half < 2; ++half)
    for (int i = 0; i < 4; ++i) {
      const int row = row0 + warp / 2 * 16 + lane / 4 + i / 2 * 8;
      const int column = column0 + warp % 2 * 16 + half * 8 + lane % 4 * 2 + i % 2;
      c[row * N + column] = d[half][i];
    }
}

// counts[x[i]] += 1, from every block.
__global__ void histogram(const int* x, int* counts, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) atomicAdd(&counts[x[i]], 1);
}

}  // namespace nanovlm::kernels
