#pragma once
#include "kernels/device.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

// The maximum of a row, as what exponentials are taken relative to. Until a finite logit has been seen exp(x - max) is
// exp(-inf - -inf); any finite number in place of max gives 0.
__device__ inline float finite(float max) { return max == -INFINITY ? 0 : max; }

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
