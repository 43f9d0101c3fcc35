// One small kernel a wrapper of kernels/hopper.cuh, as golden.cuh has for the others.
#pragma once
#include <string>
#include <vector>

#include "kernels/hopper.cuh"
#include "tests/simt_kernels/golden.cuh"

namespace nanovlm::kernels {

constexpr int kGoldenRows = 64, kGoldenMostN = 208, kGoldenThreads = 128;

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

// out[thread] = its N / 2 sums of op(a) [64, 16] op(b) [16, N], from k = 16 on, after those from k = 0 on. a is [64,
// 64] either way; b is [N, 64], or [64, N] if transposed, in boxes of 64 columns of the product.
template <int N, bool kRegisters, bool kTransposeA, bool kTransposeB>
__global__ void golden_wgmma(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,
                             const bf16* a_entries, uint32_t* out) {
  constexpr int kBoxBytes = kGoldenRows * 128, kBoxes = (N + 63) / 64;
  GPU_SHARED(uint64_t, arrived, [1]);
  GPU_SHARED_DYNAMIC(bf16, memory);
  bf16 *const a_box = on_pattern(memory + 0), *const b_box = a_box + kBoxBytes / 2;
  if (threadIdx.x == 0) {
    arrivals_init(&arrived[0], 1);
    fence_async_proxy();
    arrive_expecting(&arrived[0], (1 + kBoxes) * kBoxBytes);
    copy_box(a_box, a, 0, 0, &arrived[0]);
    for (int box = 0; box < kBoxes; ++box)
      copy_box(b_box + box * kBoxBytes / 2, b, kTransposeB ? 0 : 64 * box, kTransposeB ? 64 * box : 0, &arrived[0]);
  }
  __syncthreads();
  wait_phase(&arrived[0], 0);
  float d[N / 8][4] = {};
  const int warp = thread_in_block() / kWarp, lane = thread_in_block() % kWarp;
  uint32_t rows[2][4];
  for (int i = 0; i < 8; ++i)
    rows[i / 4][i % 4] = reinterpret_cast<const uint32_t*>(a_entries + (16 * warp + lane / 4 + i % 2 * 8) *
                                                                           kBoxColumns)[i / 2 * 4 + lane % 4];
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const uint32_t a_step = static_cast<uint32_t>(kTransposeA ? k * 16 * 128 : k * 32);
    const uint32_t b_step = static_cast<uint32_t>(kTransposeB ? k * 16 * 128 : k * 32);
    const uint64_t b_at = matrix_descriptor(shared_address(b_box) + b_step, kBoxBytes, 1024);
    if constexpr (kRegisters)
      wgmma_m64k16<kTransposeB>(k > 0, d, rows[k], b_at);
    else
      wgmma_m64n128k16<kTransposeA, kTransposeB>(
          reinterpret_cast<float(&)[64]>(d), matrix_descriptor(shared_address(a_box) + a_step, kBoxBytes, 1024), b_at);
  }
  wgmma_commit();
  wgmma_wait<0>();
  for (int i = 0; i < N / 2; ++i) out[N / 2 * thread_in_block() + i] = bits_of(d[i / 4][i % 4]);
}

struct GoldenProduct {
  const char* name;
  int N;
  bool transpose_a, transpose_b;
  void (*kernel)(TensorMap, TensorMap, const bf16*, uint32_t*);

  int words_out() const { return N / 2 * kGoldenThreads; }
};

inline std::vector<GoldenProduct> golden_products() {
  return {{"wgmma", 128, false, false, golden_wgmma<128, false, false, false>},
          {"wgmma_a_transposed", 128, true, false, golden_wgmma<128, false, true, false>},
          {"wgmma_b_transposed", 128, false, true, golden_wgmma<128, false, false, true>},
          {"wgmma_both_transposed", 128, true, true, golden_wgmma<128, false, true, true>},
          {"wgmma_64_registers", 64, false, false, golden_wgmma<64, true, false, false>},
          {"wgmma_64_registers_b_transposed", 64, false, true, golden_wgmma<64, true, false, true>},
          {"wgmma_208_registers", 208, false, false, golden_wgmma<208, true, false, false>},
          {"wgmma_208_registers_b_transposed", 208, false, true, golden_wgmma<208, true, false, true>}};
}

constexpr int64_t kGoldenHopperShared = 5 * kGoldenRows * 128 + 1024;

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
  for (int i = 0; i < kGoldenMostN * kBoxColumns; ++i) {
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    values.emplace_back(static_cast<float>(state >> 8) / 2097152.0f - 4.0f);
  }
  return values;
}

inline TensorMap golden_map_of_a(const GoldenProduct& p, const bf16* a) {
  return tensor_map(p.name, a, kGoldenRows, kBoxColumns, kGoldenRows);
}
inline TensorMap golden_map_of_b(const GoldenProduct& p, const bf16* b) {
  return tensor_map(p.name, b, p.transpose_b ? kGoldenRows : p.N, p.transpose_b ? p.N : kBoxColumns, kGoldenRows);
}

}  // namespace nanovlm::kernels
