// Models and files from the Hugging Face Hub for programs: what hub/ does, with a progress line and notes on stderr.
#pragma once
#include <string>
#include <vector>

#include "apps/common/cli.h"
#include "hub/hub.h"

namespace nanovlm {

// What belongs to a tokenizer; the last two say which token ends a text, and may be missing.
inline constexpr const char* kTokenizerFiles[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"};

// The checkpoint that a program loads, as its command line says it.
class CheckpointOption {
 public:
  // --checkpoint (or what `local` says), --hf_model, --revision
  void add_to(CommandLine& line, const std::string& local = "--checkpoint",
              const std::string& help = "folder with config.json and model.safetensors");

  const std::string& name() const { return checkpoint_.empty() ? hf_model_ : checkpoint_; }  // as it was given

  // Where it is; what the cache lacks is downloaded. UsageError: neither is given.
  std::string folder(const std::string& program) const;

 private:
  std::string local_ = "--checkpoint", checkpoint_, hf_model_, revision_ = "main";
};

// Shows how far a file is, on stderr; lives as long as the function.
hub::Progress progress_line();

// hub::resolve_snapshot; `program` begins the notes.
hub::Snapshot fetch_snapshot(const std::string& program, const std::string& name, const std::string& revision,
                             const std::vector<std::string>& files, hub::RepoType type = hub::RepoType::model);

// The folder of a checkpoint: a local folder as it is, or "org/name" on the Hub with config.json, model.safetensors and
// the tokenizer where there is one.
std::string pretrained_folder(const std::string& program, const std::string& name,
                              const std::string& revision = "main");

// A README.md with which the Hub knows what the model is.
std::string model_card(const std::string& repository);

// Fails where push_to_hub would, as far as that is known without a network: for hours before there is something to
// push.
void check_can_push(const std::string& repository);

// Uploads a checkpoint's config.json, model.safetensors, the tokenizer where there is one, and a model card, unless the
// folder has a README.md. Returns the repository's address.
std::string push_to_hub(const std::string& checkpoint, const std::string& repository, bool is_private);

}  // namespace nanovlm
