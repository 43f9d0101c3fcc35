// From the logits of one position to the next token, in nanoVLM's order: top-k and top-p act on the raw logits, the
// temperature only on what they leave.
#pragma once
#include <cstdint>
#include <span>
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

struct Candidate {
  int32_t token;
  float probability;
};

// The tokens that survive the filters, likeliest first (equal ones by id), with their probabilities.
std::vector<Candidate> candidates(std::span<const float> logits, const SamplingOptions& options);

// Greedy: the largest logit, the lowest id on ties. Otherwise drawn from candidates().
int32_t sample(std::span<const float> logits, const SamplingOptions& options, Random& random);

}  // namespace nanovlm
