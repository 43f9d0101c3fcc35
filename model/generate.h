// Text from a picture and a prompt, with a cache of keys and values.
#pragma once
#include <functional>

#include "engine/batch.h"
#include "model/sampling.h"
#include "model/vision_language_model.h"

namespace nanovlm {

struct GenerateOptions {
  SamplingOptions sampling;
  int64_t max_new_tokens = 20;
  bool stop_at_eos = true;  // false: nanoVLM v1's fixed length
  uint64_t seed = 0;
  DType dtype = DType::f32;
  // Called with the logits [B, V] that the next tokens are chosen from.
  std::function<void(const Tensor&)> on_logits;
  // Called with (sequence, token) as each token is chosen; a sequence that has ended gets no more calls.
  std::function<void(int64_t, int32_t)> on_token;
};

// New tokens of each sequence (an end token included). The batch holds one prompt a sequence, padded as nanoVLM pads,
// or not at all; with `copies` > 1 it must hold one sequence, which is continued that many times. Sequence s draws from
// random stream s, so its tokens do not depend on the others.
std::vector<std::vector<int32_t>> generate(const VisionLanguageModel& model, const Batch& batch,
                                           const GenerateOptions& options, int64_t copies = 1);

}  // namespace nanovlm
