// The words round a question, and the tokenizer together with the token that ends an answer.
#pragma once
#include <string>

#include "data/tokenizer.h"

namespace nanovlm {

std::string vqa_prompt(const std::string& question);     // Question: ... Answer:
std::string mmstar_prompt(const std::string& question);  // the same, asking for the letter only

struct PromptTokenizer {
  Tokenizer tokenizer;
  std::string eos;     // follows every answer
  int32_t eos_id = 0;  // also what padding is filled with, as in the reference
  // tokenizer_config.json's clean_up_tokenization_spaces: transformers would take spaces before punctuation out of
  // decoded text. Here they stay.
  bool wants_clean_up = false;

  // `path` is a tokenizer.json or its folder. The end token is eos_token of tokenizer_config.json or
  // special_tokens_map.json beside it, and <|endoftext|> where neither exists. Error: it is not one token.
  static PromptTokenizer load(const std::string& path);
};

}  // namespace nanovlm
