// A Llama-shaped language model out of a GGUF file, as load_backbones reads it.
#pragma once
#include <map>
#include <string>

#include "engine/gguf.h"

namespace nanovlm {

class GgufLanguageModel {
 public:
  // Checks everything but the numbers themselves. Error: another architecture, scaled RoPE, a number that is none, a
  // tensor that is missing, of another shape or without a place in the model. `gguf` must outlive this.
  explicit GgufLanguageModel(const GgufFile& gguf);

  // Writes `folder`/config.json and `folder`/model.safetensors as transformers would: its names, bf16, each weight
  // dequantised to fp32 and rounded once. llama.cpp keeps the rows of q_proj and k_proj in the order that interleaved
  // RoPE wants; here they are put back into two halves. The folder is made where it is not there.
  void write(const std::string& folder) const;

 private:
  const GgufFile& gguf_;
  std::map<std::string, std::string> names_;  // of the tensors: transformers' by llama.cpp's
  std::string config_;                        // what config.json says
};

}  // namespace nanovlm
