// The product of kernels/matmul/matmul.h by tensor cores of our own programming: c = op(a) op(b) (+ bias) (+ c). The
// model's products are a library's on a GPU; this one is measured beside it (bench/gemm) and is what fusions with a
// product start from (tile.cuh).
#pragma once
#include "kernels/matmul/matmul.h"

namespace nanovlm::kernels {

// As matmul, with in = bf16, on GPUs only: any M, N and K. Operands whose rows in memory start at multiples of 16 bytes
// are copied asynchronously, others entry by entry. Sums run by rising k, in fp32.
// Throws std::invalid_argument where `in` is not bf16, or bf16 is to be accumulated into.
template <class Backend>
void gemm(Backend, const Matmul&, Stream);

}  // namespace nanovlm::kernels
