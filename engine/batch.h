// What the data side hands to the model: plain tensors on the host. The two sides know only this.
#pragma once
#include "engine/tensor.h"

namespace nanovlm {

constexpr int32_t kIgnoredLabel = -100;  // a target that does not count

struct Batch {
  Tensor images;          // [B, 3, S, S] u8, or f32 in [0, 1]
  Tensor input_ids;       // [B, T] i32
  Tensor attention_mask;  // [B, T] u8, 1 = a token, 0 = padding; undefined: no padding
  Tensor labels;          // [B, T] i32, the next token at every place, or kIgnoredLabel
  Tensor vision = {};     // [B * P, C] what the vision encoder makes of the images; undefined: to be computed

  int64_t size() const { return input_ids.defined() ? input_ids.size(0) : 0; }
};

}  // namespace nanovlm
