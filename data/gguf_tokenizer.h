// The tokenizer inside a GGUF file, in the files that Hugging Face's libraries read.
#pragma once
#include <string>

#include "engine/gguf.h"

namespace nanovlm {

// Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json into `folder`. Error: not the byte-level BPE
// of SmolLM2 (single digits, then GPT-2's words), which the GGUF file names and does not describe; or lists that do not
// belong together.
void write_tokenizer(const GgufFile& gguf, const std::string& folder);

}  // namespace nanovlm
