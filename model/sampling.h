// From the logits of a position to the next token, in nanoVLM's order: kernels/sampling/sampling.h says how.
#pragma once
#include <cstdint>
#include <vector>

#include "engine/random.h"

namespace nanovlm {

struct SamplingOptions {
  bool greedy = false;
  int64_t top_k = 50;        // 0: off. Everything below the k-th largest logit goes; ties with it stay.
  double top_p = 0.9;        // 1: off. The token that crosses the threshold goes too, unless it is the first.
  double temperature = 0.5;  // above 0

  void validate() const;  // Error: a value out of its range
};

// A token for each row of logits [R, V] f32; row r takes one number from random[r], none if greedy. Tokens are chosen
// where the logits are: nothing else comes to the host. Error: a row with a logit that is not a number, or whose
// largest is not finite.
std::vector<int32_t> sample(const Tensor& logits, const SamplingOptions& options, std::vector<Random>& random);

}  // namespace nanovlm
