// What a run starts from: a checkpoint, published backbones, or nothing but drawn numbers.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "apps/common/train_config.h"

namespace nanovlm::training {

// Where the reference would load backbones - vlm_load_backbone_weights, and no checkpoint to resume - finds the folders
// of vit_model_type and lm_model_type (a folder, or a name on the Hub; empty: that part starts from drawn numbers),
// and takes their settings over into config.vlm. Errors: as hub::resolve_snapshot's and configure_from's.
void find_backbones(RunConfig& config);

// Where the run resumes from a checkpoint, finds its folder and takes its config.json over into config.vlm, whose other
// values, of a file, have no effect: a warning names them. UsageError: a flag among `given` says another value. Only
// hf_repo_name, which is no property of the weights, may be another.
void take_checkpoint_config(RunConfig& config, const std::map<std::string, std::string>& given);

// The checkpoint that it resumes from, or a drawn model with its backbones' weights.
VisionLanguageModel starting_model(const RunConfig& config, const Device& device, std::vector<std::string>& warnings);

// The folder of the tokenizer: a resumed checkpoint's own, else, where backbones are loaded, that of `config`'s
// lm_tokenizer on the Hub. Empty: load_tokenizer finds it.
std::string tokenizer_folder(const RunConfig& run, const VLMConfig& config);

}  // namespace nanovlm::training
