// Matrix products by the libraries of the host. They choose their own instruction set at run time, so this part of the
// CPU backend is compiled once, not once for each of ours.
//
// f32 is OpenBLAS. bf16 is oneDNN where the processor multiplies bf16 itself. Elsewhere oneDNN takes 2.5 times as long
// as f32 does, or refuses; there blocks of the operands are converted and OpenBLAS multiplies them.
#pragma once
#include "kernels/matmul/matmul.h"

namespace nanovlm::kernels {

// Not for K = 0. bf16_instructions: whether they may be used if the processor has them.
void library_matmul(const Matmul&, bool bf16_instructions);

}  // namespace nanovlm::kernels
