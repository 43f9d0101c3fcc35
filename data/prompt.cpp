#include "data/prompt.h"

#include <filesystem>

#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/json.h"

namespace nanovlm {
namespace {
namespace fs = std::filesystem;

// A token is given as its text, or as an object with the text as "content".
std::string eos_of(const fs::path& folder) {
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const std::string file = (folder / name).string();
    if (!fs::exists(file)) continue;
    const nlohmann::json document = read_json_file(file);
    if (const auto token = JsonValue(document, file).find("eos_token"))
      return token->is_object() ? (*token)["content"].string() : token->string();
  }
  return "<|endoftext|>";
}

bool asks_for_clean_up(const fs::path& folder) {
  const std::string file = (folder / "tokenizer_config.json").string();
  if (!fs::exists(file)) return false;
  const nlohmann::json document = read_json_file(file);
  const auto value = JsonValue(document, file).find("clean_up_tokenization_spaces");
  return value && value->boolean();
}
}  // namespace

std::string vqa_prompt(const std::string& question) { return "Question: " + question + " Answer:"; }

std::string mmstar_prompt(const std::string& question) {
  return "Question: " + question + " \nAnswer only with the letter! \nAnswer:";
}

PromptTokenizer PromptTokenizer::load(const std::string& path) {
  PromptTokenizer result{Tokenizer::load(path), {}};
  const fs::path folder = fs::is_directory(path) ? fs::path(path) : fs::path(path).parent_path();
  result.wants_clean_up = asks_for_clean_up(folder);
  result.eos = eos_of(folder);
  const auto id = result.tokenizer.token_to_id(result.eos);
  check(id.has_value(), path, ": expected the end token ", result.eos, " in the vocabulary, found none");
  result.eos_id = *id;
  return result;
}

}  // namespace nanovlm
