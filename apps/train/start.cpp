#include "apps/train/start.h"

#include <filesystem>

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

VisionLanguageModel starting_model(const RunConfig& config, const Device& device, std::vector<std::string>& warnings) {
  if (config.train.resume_from_vlm_checkpoint)
    return load_checkpoint(pretrained_folder("train", config.vlm.vlm_checkpoint_path), device, warnings);
  const auto seed = static_cast<uint64_t>(config.train.seed);
  VisionLanguageModel model(config.vlm, device);
  model.initialise(seed, config.train.init == "balanced" ? Init::balanced : Init::nanovlm);
  std::vector<std::string> notes;
  load_backbones(config.backbones, model, seed, notes);
  note("train", notes);
  return model;
}

std::string tokenizer_folder(const RunConfig& run, const VLMConfig& config) {
  if (run.train.resume_from_vlm_checkpoint) {
    const std::string folder = pretrained_folder("train", run.vlm.vlm_checkpoint_path);
    if (std::filesystem::exists(std::filesystem::path(folder) / kTokenizerFiles[0])) return folder;
  }
  const std::string& name = config.lm_tokenizer;
  if (std::filesystem::is_directory(name)) return name;
  const bool ours = name.empty() || name == "HuggingFaceTB/cosmo2-tokenizer" || name == "HuggingFaceTB/SmolLM2-135M";
  if (ours || !config.vlm_load_backbone_weights) return "";
  return fetch_snapshot("train", name, "main", {"tokenizer.json", "tokenizer_config*.json", "special_tokens_map*.json"})
      .folder;
}

}  // namespace nanovlm::training
