#include "apps/train/start.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/common/loaded_model.h"
#include "apps/common/output.h"
#include "apps/common/pretrained.h"
#include "model/weights.h"

namespace nanovlm::training {
namespace {

std::string backbone_folder(const char* field, const std::string& name) {
  if (name.empty() || std::filesystem::is_directory(name)) return name;
  try {
    return fetch_snapshot("train", name, "main", {"config.json", "*.safetensors", "*.safetensors.index.json"}).folder;
  } catch (const std::exception& error) {
    fail("--", field, " ", error.what(),
         "; a local folder does too, and --vlm_load_backbone_weights false begins with drawn weights");
  }
}

}  // namespace

void find_backbones(RunConfig& config) {
  if (!config.begins_with_backbones()) return;
  config.backbones = {backbone_folder("vit_model_type", config.vlm.vit_model_type),
                      backbone_folder("lm_model_type", config.vlm.lm_model_type),
                      config.train.resize_position_embedding};
  configure_from(config.backbones, config.vlm);
}

void take_checkpoint_config(RunConfig& config, const std::map<std::string, std::string>& given) {
  config.checkpoint = pretrained_folder("train", config.vlm.vlm_checkpoint_path);
  std::vector<std::string> ignored;  // load_checkpoint gives these again
  VLMConfig saved = load_config(config.checkpoint, ignored);
  // These two say how the run begins.
  saved.vlm_checkpoint_path = config.vlm.vlm_checkpoint_path;
  saved.vlm_load_backbone_weights = config.vlm.vlm_load_backbone_weights;
  // And this one what its model is to be called.
  if (given.contains("hf_repo_name") || config.vlm.hf_repo_name != VLMConfig().hf_repo_name)
    saved.hf_repo_name = config.vlm.hf_repo_name;

  const auto asked_json = nlohmann::json::parse(to_json_text(config.vlm));
  const auto saved_json = nlohmann::json::parse(to_json_text(saved)),
             defaults = nlohmann::json::parse(to_json_text({}));
  std::string of_file;
  for (const auto& [name, value] : asked_json.items()) {
    if (value == saved_json[name]) continue;
    if (given.contains(name))
      throw UsageError(text("--", name, " is ", value.dump(), ", but the checkpoint ", config.checkpoint, " has ",
                            saved_json[name].dump(), ", and its configuration decides: leave the flag out"));
    if (value != defaults[name]) of_file += (of_file.empty() ? "" : ", ") + name;
  }
  if (!of_file.empty())
    config.warnings.push_back(text("the checkpoint ", config.checkpoint,
                                   " decides: the configuration file's values have no effect for ", of_file));
  config.vlm = saved;
}

VisionLanguageModel starting_model(const RunConfig& config, const Device& device, std::vector<std::string>& warnings) {
  if (config.train.resume_from_vlm_checkpoint) {
    VisionLanguageModel model = load_checkpoint(config.checkpoint, device, warnings);
    model.config.hf_repo_name = config.vlm.hf_repo_name;
    return model;
  }
  const auto seed = static_cast<uint64_t>(config.train.seed);
  VisionLanguageModel model(config.vlm, device);
  model.initialise(seed, config.train.init == "balanced" ? Init::balanced : Init::nanovlm);
  std::vector<std::string> notes;
  load_backbones(config.backbones, model, seed, notes);
  note("train", notes);
  return model;
}

std::string tokenizer_folder(const RunConfig& run, const VLMConfig& config) {
  if (has_tokenizer(run.checkpoint)) return run.checkpoint;
  const std::string& name = config.lm_tokenizer;
  if (!config.vlm_load_backbone_weights || is_our_tokenizer(name) || std::filesystem::is_directory(name)) return "";
  return fetch_snapshot("train", name, "main", {"tokenizer.json", "tokenizer_config*.json", "special_tokens_map*.json"})
      .folder;
}

}  // namespace nanovlm::training
