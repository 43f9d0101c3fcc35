#include "apps/common/loaded_model.h"

#include <filesystem>

#include "apps/common/pretrained.h"
#include "engine/file.h"
#include "model/weights.h"

namespace nanovlm {
namespace fs = std::filesystem;

DType dtype_of(const std::string& name) {
  check(name == "f32" || name == "bf16", "dtype: expected f32 or bf16, found ", name);
  return name == "f32" ? DType::f32 : DType::bf16;
}

namespace {

const char kOurTokenizer[] = NANOVLM_ASSETS "/tokenizer/tokenizer.json";

std::string tokenizer_path(const std::string& given, const std::string& checkpoint, const VLMConfig& config) {
  if (!given.empty()) return fs::is_directory(given) ? (fs::path(given) / "tokenizer.json").string() : given;
  const bool is_file = fs::is_regular_file(checkpoint);
  const std::string folder = is_file ? fs::absolute(checkpoint).parent_path().string() : checkpoint;
  for (const std::string& place : {folder, config.lm_tokenizer})
    if (has_tokenizer(place)) return (fs::path(place) / "tokenizer.json").string();
  return kOurTokenizer;
}

}  // namespace

bool has_tokenizer(const std::string& folder) {
  return !folder.empty() && fs::exists(fs::path(folder) / kTokenizerFiles[0]);
}

bool is_our_tokenizer(const std::string& lm_tokenizer) {
  // The last is what the presets say: a path from this repository's root.
  for (const char* name : {"", "HuggingFaceTB/cosmo2-tokenizer", "HuggingFaceTB/SmolLM2-135M", "assets/tokenizer"})
    if (lm_tokenizer == name) return true;
  return false;
}

PromptTokenizer load_tokenizer(const std::string& given, const std::string& checkpoint, const VLMConfig& config,
                               std::vector<std::string>& warnings) {
  const std::string path = tokenizer_path(given, checkpoint, config);
  std::string absent;
  if (path == kOurTokenizer && given.empty() && !is_our_tokenizer(config.lm_tokenizer))
    absent = "lm_tokenizer is " + config.lm_tokenizer +
             ", where no tokenizer.json is: the one in assets/ is used (--tokenizer names another)";
  PromptTokenizer text = PromptTokenizer::load(path);
  check(text.tokenizer.vocab_size() <= config.lm_vocab_size, path, ": expected at most ", config.lm_vocab_size,
        " tokens, as the model in ", checkpoint, " has, found ", text.tokenizer.vocab_size(),
        absent.empty() ? "" : "; " + absent);
  if (!absent.empty()) warnings.push_back(absent);
  if (text.eos_id != config.lm_eos_token_id)
    warnings.push_back(nanovlm::text(path, ": the end token is ", text.eos_id, ", but the model's lm_eos_token_id is ",
                                     config.lm_eos_token_id, "; generation ends at the latter"));
  return text;
}

std::map<std::string, std::string> tokenizer_files(const std::string& given, const std::string& checkpoint,
                                                   const VLMConfig& config) {
  constexpr int64_t kMaxBytes = int64_t{256} << 20;
  const fs::path path = tokenizer_path(given, checkpoint, config);
  std::map<std::string, std::string> files;
  if (fs::exists(kOurTokenizer) && fs::equivalent(path, kOurTokenizer)) return files;
  for (const char* name : kTokenizerFiles) {
    const fs::path file = files.empty() ? path : path.parent_path() / name;
    if (!fs::exists(file)) continue;
    const std::vector<uint8_t> bytes = File::open(file.string()).read_all(kMaxBytes);
    files[name] = std::string(bytes.begin(), bytes.end());
  }
  return files;
}

LoadedModel LoadedModel::load(const std::string& checkpoint, const std::string& tokenizer, const Device& device,
                              DType dtype) {
  std::vector<std::string> warnings;
  const VLMConfig config = load_config(checkpoint, warnings);
  warnings.clear();  // load_checkpoint gives them again
  // The tokenizer first: it is small, and what is wrong with it is said before the weights are read.
  PromptTokenizer text = load_tokenizer(tokenizer, checkpoint, config, warnings);
  if (text.wants_clean_up)
    warnings.push_back(nanovlm::text(tokenizer_path(tokenizer, checkpoint, config),
                                     ": clean_up_tokenization_spaces is true, but is not done here: generated text "
                                     "keeps spaces before punctuation that transformers would take out"));
  VisionLanguageModel model = load_checkpoint(checkpoint, device, warnings);
  model.to_inference(dtype);
  return {std::move(model), std::move(text), std::move(warnings)};
}

}  // namespace nanovlm
