// The tokenizer inside a GGUF file, in the files that Hugging Face's libraries read.
#pragma once
#include <map>
#include <string>

#include "engine/gguf.h"

namespace nanovlm {

// What is in tokenizer.json, tokenizer_config.json and special_tokens_map.json, by these names. Error: not the
// byte-level BPE of SmolLM2 (single digits, then GPT-2's words), which the GGUF file names and does not describe; or
// lists that do not belong together.
std::map<std::string, std::string> tokenizer_files(const GgufFile& gguf);

}  // namespace nanovlm
