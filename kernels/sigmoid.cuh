// sigmoid(x) and 1 - sigmoid(x) = sigmoid(-x), neither of which cancels: slopes of the sigmoid need both.
#pragma once
#include "kernels/device.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

struct SigmoidPair {
  float plus, minus;
};

__device__ inline SigmoidPair sigmoid_pair(float x) {
  const float e = expf(-fabsf(x)), large = 1.0f / (1.0f + e), small = e * large;
  return {x < 0 ? small : large, x < 0 ? large : small};
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
