// What a run starts from: a checkpoint, published backbones, or nothing but drawn numbers.
#pragma once
#include <string>
#include <vector>

#include "apps/common/train_config.h"

namespace nanovlm::training {

// Where the reference would load backbones - vlm_load_backbone_weights, and no checkpoint to resume - finds the folders
// of vit_model_type and lm_model_type (a folder, or a name on the Hub; empty: that part starts from drawn numbers),
// and takes their settings over into config.vlm. Errors: as hub::resolve_snapshot's and configure_from's.
void find_backbones(RunConfig& config);

// The checkpoint in vlm_checkpoint_path, or a drawn model with its backbones' weights.
VisionLanguageModel starting_model(const RunConfig& config, const Device& device, std::vector<std::string>& warnings);

// The folder of the tokenizer: a resumed checkpoint's own, else that of `config`'s lm_tokenizer. Empty, which stands
// for the tokenizer in assets/, where that is SmolLM2's or no backbone is loaded.
std::string tokenizer_folder(const RunConfig& run, const VLMConfig& config);

}  // namespace nanovlm::training
