// A Llama-shaped language model out of a GGUF file, as load_backbones reads it.
#pragma once
#include <string>

#include "engine/gguf.h"

namespace nanovlm {

// Error: another architecture, scaled RoPE, a number that is none, a tensor that is missing, of another shape or
// without a place in the model.
void check_language_model(const GgufFile& gguf);

// Writes `folder`/config.json and `folder`/model.safetensors as transformers would: its names, bf16, each weight
// dequantised to fp32 and rounded once. llama.cpp keeps the rows of q_proj and k_proj in the order that interleaved
// RoPE wants; here they are put back into two halves. The folder is made where it is not there, and only after
// check_language_model.
void write_language_model(const GgufFile& gguf, const std::string& folder);

}  // namespace nanovlm
