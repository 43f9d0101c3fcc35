// Checkpoints in nanoVLM's own format: a folder with config.json and model.safetensors.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "model/vision_language_model.h"

namespace nanovlm {

// Reads the weights of `model` from a safetensors file. All or nothing: every missing tensor, wrong shape and wrong
// dtype is listed in one Error before anything is copied; unknown tensors add lines to `warnings`. nanoVLM's
// conventions: of a tied pair the file holds one name, either of the two; the buffer decoder.rotary_embd.inv_freq is
// ignored.
void load_weights(VisionLanguageModel& model, const std::string& path, std::vector<std::string>& warnings);

// Loads `folder`/config.json and `folder`/model.safetensors.
VisionLanguageModel load_checkpoint(const std::string& folder, const Device& device,
                                    std::vector<std::string>& warnings);

// Writes both and `others`, files by their names, whole or not at all: a temporary folder beside it is renamed into
// place, replacing an older checkpoint.
void save_checkpoint(VisionLanguageModel& model, const std::string& folder,
                     const std::map<std::string, std::string>& others = {});

// Every parameter by its name in a checkpoint, `decoder.head.weight` for a tied pair, and the buffer inv_freq: what
// nanoVLM saves.
std::vector<std::pair<std::string, Tensor>> checkpoint_tensors(VisionLanguageModel& model);

}  // namespace nanovlm
