// From logits to tokens, in nanoVLM's order: top-k and top-p act on the raw logits, the temperature only on what they
// leave.
//   top-k: every logit below the k-th largest goes; ties with it stay.
//   top-p: of the rest, likeliest first (equal ones by id), the token at which the sum of probabilities exceeds top_p
//          goes, and all after it; the first always stays.
//   probability = softmax(logits / temperature) over what is left
//   token       = the first, likeliest first, at which the sum of probabilities exceeds `uniform`
// Arithmetic is fp32 or better. Backends may add in another order: where a sum meets its threshold to within rounding,
// they may choose neighbouring tokens.
#pragma once
#include "kernels/types.h"

namespace nanovlm::kernels {

struct Sampling {
  const float* logits;   // [R, V]
  const float* uniform;  // [R], each in [0, 1); null: the largest logit's token, the lowest id on ties
  int32_t* tokens;       // [R]; -1 where a logit is not a number, or the largest is not finite
  float* probabilities;  // [R, V], 0 for tokens that are gone; or null. Not written for rows whose token is -1
  int64_t R, V;
  int64_t top_k;      // 0: off
  float top_p;        // 0 ... 1; 1: off
  float temperature;  // above 0
};

template <class Backend>
void sampling(Backend, const Sampling&, Stream);

}  // namespace nanovlm::kernels
