// Matrix products by the libraries of the host: OpenBLAS for f32, oneDNN for bf16.
//
// They choose their own instruction set at run time, so this part of the CPU backend is compiled once, not once for
// each of ours.
#pragma once
#include "kernels/matmul/matmul.h"

namespace nanovlm::kernels {

void library_matmul(const Matmul&);

}  // namespace nanovlm::kernels
