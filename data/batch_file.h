// Batches kept in a safetensors file: `images` (f32) or `images_u8` (divided by 255), `input_ids`, `labels`, and
// `attention_mask` if any. Either one batch ([B, ...]) or N micro-batches stacked in the first dimension ([N, B, ...]).
#pragma once
#include <string>

#include "engine/batch.h"
#include "engine/safetensors.h"

namespace nanovlm {

class BatchFile {
 public:
  // Errors name file and tensor: a tensor is missing, shapes do not agree, an unexpected rank.
  explicit BatchFile(const std::string& path);

  int64_t size() const { return stacked_ ? input_ids_.size(0) : 1; }  // batches
  Batch read(int64_t i) const;

 private:
  Device device_;
  bool stacked_ = false;
  Tensor images_, input_ids_, attention_mask_, labels_;  // as in the file; images u8 or f32
};

}  // namespace nanovlm
