#include "data/gguf_tokenizer.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include <nlohmann/json.hpp>

namespace nanovlm {
namespace {
using nlohmann::json;

constexpr int64_t kControl = 3;  // the type of a token that no text contains

json added_tokens(const std::vector<std::string>& tokens, const std::vector<int64_t>& types) {
  json added = json::array();
  for (size_t id = 0; id < tokens.size(); ++id)
    if (types[id] == kControl)
      added.push_back({{"id", id},
                       {"content", tokens[id]},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", true}});
  return added;
}

json byte_level(bool add_prefix_space) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}, {"trim_offsets", true}, {"use_regex", true}};
}

json tokenizer_json(const GgufFile& gguf, const std::vector<std::string>& tokens, const json& added) {
  json vocabulary = json::object();
  for (size_t id = 0; id < tokens.size(); ++id) vocabulary[tokens[id]] = id;
  const json pre_tokenizers = {{{"type", "Digits"}, {"individual_digits", true}}, byte_level(false)};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", pre_tokenizers}}},
          {"post_processor", nullptr},
          {"decoder", byte_level(true)},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocabulary},
            {"merges", gguf.strings("tokenizer.ggml.merges")}}}};
}

// The roles that the file names: {"eos_token": "<|im_end|>", ...}.
json special_tokens(const GgufFile& gguf, const std::vector<std::string>& tokens) {
  json special = json::object();
  for (const auto& [role, name] :
       {std::pair{"bos_token", "bos"}, {"eos_token", "eos"}, {"unk_token", "unknown"}, {"pad_token", "padding"}}) {
    const std::string key = text("tokenizer.ggml.", name, "_token_id");
    if (!gguf.has(key)) continue;
    const int64_t id = gguf.integer(key);
    check(id >= 0 && id < static_cast<int64_t>(tokens.size()), gguf.path(), ": ", key, ": expected a token, 0 to ",
          tokens.size() - 1, ", found ", id);
    special[role] = tokens[static_cast<size_t>(id)];
  }
  return special;
}

json tokenizer_config(const GgufFile& gguf, size_t tokens, const json& added, const json& special) {
  json config = {{"add_prefix_space", false},
                 {"added_tokens_decoder", json::object()},
                 {"additional_special_tokens", json::array()},
                 {"clean_up_tokenization_spaces", false},
                 {"model_max_length", gguf.integer("llama.context_length")},
                 {"tokenizer_class", "GPT2Tokenizer"},
                 {"vocab_size", tokens}};
  for (json token : added) {
    config["additional_special_tokens"].push_back(token["content"]);
    const std::string id = token["id"].dump();
    token.erase("id");
    config["added_tokens_decoder"][id] = token;
  }
  config.update(special);
  if (gguf.has("tokenizer.chat_template")) config["chat_template"] = gguf.string("tokenizer.chat_template");
  return config;
}

// Error: a text that is not UTF-8, as JSON has to be.
std::string json_text(const std::string& source, const char* file, const json& document, int indent) {
  try {
    return document.dump(indent);
  } catch (const json::exception& error) {
    fail(source, ": expected texts in UTF-8 for ", file, ", found ", error.what());
  }
}

}  // namespace

std::map<std::string, std::string> tokenizer_files(const GgufFile& gguf) {
  for (const auto& [key, expected] : {std::pair{"tokenizer.ggml.model", "gpt2"}, {"tokenizer.ggml.pre", "smollm"}})
    check(gguf.string(key) == expected, gguf.path(), ": ", key, ": expected ", expected, ", found ", gguf.string(key));
  const std::vector<std::string>& tokens = gguf.strings("tokenizer.ggml.tokens");
  const std::vector<int64_t>& types = gguf.integers("tokenizer.ggml.token_type");
  check(tokens.size() == types.size(), gguf.path(), ": tokenizer.ggml.token_type: expected ", tokens.size(),
        " types, one a token, found ", types.size());
  std::unordered_map<std::string_view, size_t> ids;
  for (size_t id = 0; id < tokens.size(); ++id) {
    const auto [first, is_new] = ids.emplace(tokens[id], id);
    check(is_new, gguf.path(), ": tokenizer.ggml.tokens: expected each token once, found token ", id, " to be token ",
          first->second, " again");
  }
  // What the tokenizer's readers ask for.
  const std::vector<std::string>& merges = gguf.strings("tokenizer.ggml.merges");
  std::unordered_set<std::string_view> merged;
  for (size_t i = 0; i < merges.size(); ++i) {
    const std::string_view merge = merges[i];
    const size_t gap = std::min(merge.find(' '), merge.size());
    const auto is_token = [&](std::string_view piece) { return ids.contains(piece); };
    const std::string_view left = merge.substr(0, gap), right = merge.substr(std::min(gap + 1, merge.size()));
    check(is_token(left) && is_token(right) && is_token(text(left, right)) && merged.insert(merge).second, gguf.path(),
          ": tokenizer.ggml.merges: expected pairs of tokens that make a third, each once, found \"", merge,
          "\" as merge ", i);
  }

  const json added = added_tokens(tokens, types);
  json special = special_tokens(gguf, tokens);
  const json config = tokenizer_config(gguf, tokens.size(), added, special);
  special["additional_special_tokens"] = config["additional_special_tokens"];
  std::map<std::string, std::string> files;
  const auto add = [&](const char* name, const json& document, int indent) {
    files[name] = json_text(gguf.path(), name, document, indent);
  };
  add("tokenizer.json", tokenizer_json(gguf, tokens, added), -1);
  add("tokenizer_config.json", config, 2);
  add("special_tokens_map.json", special, 2);
  return files;
}

}  // namespace nanovlm
