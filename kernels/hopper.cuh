// Words for kernels of their own for Hopper GPUs, beside those of device.cuh: the bulk copy engine, barriers in shared
// memory that count its bytes, and tensor-core products of four warps that read both operands from shared memory.
//
// simt/hopper.h says what each wrapper does.
#pragma once
#include "kernels/device.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

constexpr int kBoxColumns = 64;  // of bf16: 128 bytes, a row of the swizzle's pattern

// How wgmma finds an operand in shared memory that copy_box has filled: boxes of 8 or more rows of 128 bytes, swizzled
// in patterns of 1,024 bytes. Where a box's rows run along k (not transposed), `next_rows` bytes lead from 8 outer
// indices to the next 8. Where they run along the outer index (transposed), `next_rows` leads from 8 of k to the next
// 8, and `next_box` from 64 outer indices to the next. PTX ISA, "Matrix Descriptor Format".
__device__ inline uint64_t matrix_descriptor(uint32_t shared_address, int next_box, int next_rows) {
  const auto field = [](uint32_t bytes) { return uint64_t{(bytes & 0x3ffffu) >> 4}; };
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  return field(shared_address) | field(static_cast<uint32_t>(next_box)) << 16 |
         field(static_cast<uint32_t>(next_rows)) << 32 | kSwizzle128;
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS

#if defined(__CUDACC__)
#include "kernels/cuda/hopper.cuh"
#else
#define __grid_constant__
#include "kernels/simt/hopper.h"
#endif
