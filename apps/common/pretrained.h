// Models and files from the Hugging Face Hub for programs: what hub/ does, with a progress line and notes on stderr.
#pragma once
#include <string>
#include <vector>

#include "hub/hub.h"

namespace nanovlm {

// Shows how far a file is, on stderr; lives as long as the function.
hub::Progress progress_line();

// hub::resolve_snapshot; `program` begins the notes.
hub::Snapshot fetch_snapshot(const std::string& program, const std::string& name, const std::string& revision,
                             const std::vector<std::string>& files, hub::RepoType type = hub::RepoType::model);

// The folder of a checkpoint: a local folder as it is, or "org/name" on the Hub with config.json, model.safetensors and
// the tokenizer where there is one.
std::string pretrained_folder(const std::string& program, const std::string& name,
                              const std::string& revision = "main");

}  // namespace nanovlm
