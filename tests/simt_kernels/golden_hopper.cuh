// One small kernel a wrapper of kernels/hopper.cuh, as golden.cuh has for the others.
#pragma once
#include <string>
#include <vector>

#include "kernels/hopper.cuh"
#include "tests/simt_kernels/golden.cuh"

namespace nanovlm::kernels {

constexpr int kGoldenRows = 64, kGoldenN = 128, kGoldenThreads = 128;

__device__ inline bf16* on_pattern(bf16* shared) { return shared + (1024 - shared_address(shared) % 1024) % 1024 / 2; }

// out = the 64 x 64 box at (row, column), as it lies in shared memory.
__global__ void golden_copy_box(const __grid_constant__ TensorMap from, uint32_t* out, int row, int column) {
  GPU_SHARED(uint64_t, arrived, [1]);
  GPU_SHARED_DYNAMIC(bf16, memory);
  bf16* const box = on_pattern(memory + 0);
  if (threadIdx.x == 0) {
    arrivals_init(&arrived[0], 1);
    fence_async_proxy();
    arrive_expecting(&arrived[0], kGoldenRows * 128);
    copy_box(box, from, row, column, &arrived[0]);
  }
  __syncthreads();
  wait_phase(&arrived[0], 0);
  const uint32_t* words = reinterpret_cast<const uint32_t*>(box);
  for (int i = thread_in_block(); i < kGoldenRows * kBoxColumns / 2; i += kGoldenThreads) out[i] = words[i];
}

// out[thread] = its 64 sums of op(a) [64, 16] op(b) [16, 128], from k = 16 on, after those from k = 0 on. a is [64, 64]
// either way; b is [128, 64], or [64, 128] if transposed.
template <bool kTransposeA, bool kTransposeB>
__global__ void golden_wgmma(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, uint32_t* out) {
  constexpr int kBoxBytes = kGoldenRows * 128;
  GPU_SHARED(uint64_t, arrived, [1]);
  GPU_SHARED_DYNAMIC(bf16, memory);
  bf16 *const a_box = on_pattern(memory + 0), *const b_box = a_box + kBoxBytes / 2;
  if (threadIdx.x == 0) {
    arrivals_init(&arrived[0], 1);
    fence_async_proxy();
    arrive_expecting(&arrived[0], 3 * kBoxBytes);
    copy_box(a_box, a, 0, 0, &arrived[0]);
    copy_box(b_box, b, 0, 0, &arrived[0]);
    copy_box(b_box + kBoxBytes / 2, b, kTransposeB ? 0 : 64, kTransposeB ? 64 : 0, &arrived[0]);
  }
  __syncthreads();
  wait_phase(&arrived[0], 0);
  float d[64] = {};
  wgmma_fence();
  for (int k = 0; k < 32; k += 16) {
    const uint32_t a_step = static_cast<uint32_t>(kTransposeA ? k * 128 : k * 2);
    const uint32_t b_step = static_cast<uint32_t>(kTransposeB ? k * 128 : k * 2);
    wgmma_m64n128k16<kTransposeA, kTransposeB>(d, matrix_descriptor(shared_address(a_box) + a_step, kBoxBytes, 1024),
                                               matrix_descriptor(shared_address(b_box) + b_step, kBoxBytes, 1024));
  }
  wgmma_commit();
  wgmma_wait<0>();
  for (int i = 0; i < 64; ++i) out[64 * thread_in_block() + i] = bits_of(d[i]);
}

struct GoldenProduct {
  const char* name;
  bool transpose_a, transpose_b;
  void (*kernel)(TensorMap, TensorMap, uint32_t*);
};

inline std::vector<GoldenProduct> golden_products() {
  return {{"wgmma", false, false, golden_wgmma<false, false>},
          {"wgmma_a_transposed", true, false, golden_wgmma<true, false>},
          {"wgmma_b_transposed", false, true, golden_wgmma<false, true>},
          {"wgmma_both_transposed", true, true, golden_wgmma<true, true>}};
}

constexpr int64_t kGoldenHopperShared = 3 * kGoldenRows * 128 + 1024;

// A box that reaches past the matrix on both sides.
struct GoldenBox {
  int64_t rows, columns;  // of the matrix
  int row, column;
};
constexpr GoldenBox kGoldenBox{100, 88, 40, 32};

// A bf16 of its own for each index, in turn.
inline std::vector<bf16> golden_numbers(int64_t count) {
  std::vector<bf16> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i].bits = static_cast<uint16_t>(i + 1);
  return values;
}

// Numbers in -4 ... 4, the same on every machine: enough for either operand.
inline std::vector<bf16> golden_matrix(int seed) {
  std::vector<bf16> values;
  uint32_t state = 2463534242u + static_cast<uint32_t>(seed);
  for (int i = 0; i < kGoldenN * kBoxColumns; ++i) {
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    values.emplace_back(static_cast<float>(state >> 8) / 2097152.0f - 4.0f);
  }
  return values;
}

inline TensorMap golden_map_of_a(const GoldenProduct& p, const bf16* a) {
  return tensor_map(p.name, a, kGoldenRows, kBoxColumns, kGoldenRows);
}
inline TensorMap golden_map_of_b(const GoldenProduct& p, const bf16* b) {
  return tensor_map(p.name, b, p.transpose_b ? kGoldenRows : kGoldenN, p.transpose_b ? kGoldenN : kBoxColumns,
                    kGoldenRows);
}

}  // namespace nanovlm::kernels
