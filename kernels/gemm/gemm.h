// The product of kernels/matmul/matmul.h by tensor cores of our own programming: c = op(a) op(b) (+ bias) (+ c). The
// model's products are a library's on a GPU; this one is measured beside it (bench/gemm) and is what fusions with a
// product start from (tile.cuh).
#pragma once
#include <string_view>
#include <type_traits>

#include "kernels/matmul/matmul.h"

namespace nanovlm::kernels {

// Whether a backend has these: those of GPUs do.
template <class Backend>
constexpr bool kHasGemm = std::is_same_v<Backend, Simt> || std::is_same_v<Backend, Cuda>;

// As matmul, with in = bf16, on GPUs only: any M, N and K. Operands whose rows in memory start at multiples of 16 bytes
// are copied asynchronously, others entry by entry. Sums run by rising k, in fp32.
// Throws std::invalid_argument where `in` is not bf16, or bf16 is to be accumulated into.
template <class Backend>
void gemm(Backend, const Matmul&, Stream);

// The same by Hopper's wgmma and bulk copies, for GPUs of compute capability 9.0. Rows of a and b in memory must start
// at multiples of 16 bytes: a multiple of 8 entries from each other. Throws std::invalid_argument where they do not,
// and std::runtime_error on another GPU.
template <class Backend>
void gemm_hopper(Backend, const Matmul&, Stream);

// The product by the kernel that a run has chosen (kernels/variants.h), "gemm" or "gemm_hopper"; by matmul where
// `chosen` is null, "library", or on a CPU.
template <class Backend>
void chosen_matmul(Backend backend, const char* chosen, const Matmul& product, Stream stream) {
  if constexpr (kHasGemm<Backend>) {
    const std::string_view name = chosen ? chosen : "library";
    if (name == "gemm") return gemm(backend, product, stream);
    if (name == "gemm_hopper") return gemm_hopper(backend, product, stream);
  }
  matmul(backend, product, stream);
}

}  // namespace nanovlm::kernels
