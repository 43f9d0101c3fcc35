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
}  // namespace

std::string vqa_prompt(const std::string& question) { return "Question: " + question + " Answer:"; }

std::string mmstar_prompt(const std::string& question) {
  return "Question: " + question + " \nAnswer only with the letter! \nAnswer:";
}

PromptTokenizer PromptTokenizer::load(const std::string& path) {
  PromptTokenizer result{Tokenizer::load(path), {}};
  const fs::path folder = fs::is_directory(path) ? fs::path(path) : fs::path(path).parent_path();
  result.eos = eos_of(folder);
  const auto id = result.tokenizer.token_to_id(result.eos);
  check(id.has_value(), path, ": expected the end token ", result.eos, " in the vocabulary, found none");
  result.eos_id = *id;
  return result;
}

}  // namespace nanovlm
