// Pixel shuffle and the linear map behind it as one product: patches are shuffled where the product loads or stores
// them, and the shuffled picture is never written. K = f * f * C features, R = B (n/f)^2 tokens.
//
//   y = shuffled(x) weight^T,   dx = unshuffled(dy weight),   dweight (+)= dy^T shuffled(x)
//
// A choice beside the library's product on shuffled rows (`--kernel projector=fused`), for GPUs and bf16. Sums run by
// rising k, in fp32; y and dx are rounded once.
#pragma once
#include "kernels/gemm/gemm.h"

namespace nanovlm::kernels {

struct Projector {
  const bf16* x;       // [B, n * n, C]
  const bf16* weight;  // [N, K]
  bf16* y;             // [R, N]
  int64_t B, C, N;
  int n, f;  // f divides n
};

struct ProjectorBackward {
  const bf16 *x, *weight, *dy;  // as above; dy [R, N]
  void* dx;                     // [B, n * n, C] dx_dtype, or null
  float* dweight;               // [N, K], or null
  bool accumulate;              // into dweight
  int64_t B, C, N;
  int n, f;
  DType dx_dtype;
};

// On backends with kHasGemm. Throws std::invalid_argument where x has more than 2^31 - 1 entries.
template <class Backend>
void projector(Backend, const Projector&, Stream);
template <class Backend>
void projector_backward(Backend, const ProjectorBackward&, Stream);

}  // namespace nanovlm::kernels
