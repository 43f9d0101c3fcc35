#include "apps/common/pretrained.h"

#include <filesystem>
#include <memory>

#include <unistd.h>

#include "apps/common/output.h"
#include "engine/file.h"
#include "hub/upload.h"

namespace nanovlm {
namespace fs = std::filesystem;
namespace {

// A folder that goes with this.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (fs::temp_directory_path() / "nanovlm-XXXXXX").string();
    check(mkdtemp(pattern.data()) != nullptr, pattern, ": can't be created");
    path_ = pattern;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }

  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

}  // namespace

void CheckpointOption::add_to(CommandLine& line, const std::string& local, const std::string& help) {
  local_ = local;
  const auto option = line.option(local, checkpoint_, help);
  line.option("--hf_model", hf_model_, "the same from the Hugging Face Hub: ORG/NAME (or a local folder)")
      .excludes(option);
  line.option("--revision", revision_, "of --hf_model: a branch, a tag or a commit");
}

std::string CheckpointOption::folder(const std::string& program) const {
  if (!checkpoint_.empty()) return checkpoint_;
  if (hf_model_.empty()) throw UsageError(local_ + " or --hf_model is required");
  return pretrained_folder(program, hf_model_, revision_);
}

hub::Progress progress_line() {
  struct Line {
    std::string file;
    std::unique_ptr<Progress> progress;
  };
  return [line = std::make_shared<Line>()](const std::string& file, int64_t done, int64_t of) {
    constexpr int64_t kMegabyte = 1'000'000;
    if (line->file != file) {
      line->progress.reset();  // which clears its line before another begins
      *line = {file, std::make_unique<Progress>(file + ", MB")};
    }
    line->progress->show(done / kMegabyte, of / kMegabyte);
  };
}

hub::Snapshot fetch_snapshot(const std::string& program, const std::string& name, const std::string& revision,
                             const std::vector<std::string>& files, hub::RepoType type) {
  hub::Snapshot snapshot = hub::resolve_snapshot(name, revision, files, type, progress_line());
  note(program, snapshot.notes);
  return snapshot;
}

std::string pretrained_folder(const std::string& program, const std::string& name, const std::string& revision) {
  if (fs::is_directory(name)) return name;
  return fetch_snapshot(program, name, revision,
                        {"config.json", "model.safetensors", "tokenizer*.json", "special_tokens_map*.json"})
      .folder;
}

std::string model_card(const std::string& repository) {
  return text(R"(---
library_name: nanovlm
license: mit
pipeline_tag: image-text-to-text
tags:
- vision-language
- multimodal
- research
---

# )",
              repository, R"(

A vision-language model in the format of [nanoVLM](https://github.com/huggingface/nanoVLM): a SigLIP vision transformer,
pixel shuffle and one linear projection, a SmolLM2 decoder. `config.json` has its sizes. It was trained with nanovlm.cpp,
which is C++ and CUDA; nanoVLM loads it too.

With nanovlm.cpp:

    generate --hf_model )",
              repository, R"( --image picture.jpg --prompt "What is this?"

With nanoVLM:

```python
from models.vision_language_model import VisionLanguageModel

model = VisionLanguageModel.from_pretrained(")",
              repository, R"(")
```
)");
}

void check_can_push(const std::string& repository) {
  check(hub::is_repo_name(repository), "\"", repository, "\": expected a repository's name such as org/name");
  const hub::Settings settings = hub::Settings::from_environment();
  check(!settings.offline, repository, ": can't be pushed to, for HF_HUB_OFFLINE is set");
  check(!settings.token.empty(), repository, ": expected a token in HF_TOKEN to push with, found none");
}

std::string push_to_hub(const std::string& checkpoint, const std::string& repository, bool is_private) {
  const TemporaryFolder folder;
  std::vector<std::string> names(std::begin(kTokenizerFiles), std::end(kTokenizerFiles));
  names.insert(names.end(), {"config.json", "model.safetensors", "README.md"});
  for (const std::string& name : names) {
    const fs::path file = fs::absolute(checkpoint) / name;
    if (fs::exists(file)) fs::create_symlink(file, folder.path() / name);
  }
  const fs::path card = folder.path() / "README.md";
  if (!fs::exists(card)) {
    NewFile file(card.string());
    file.write(model_card(repository));
    file.commit();
  }
  hub::UploadOptions options;
  options.is_private = is_private;
  options.message = "Upload nanoVLM using push_to_hub";
  return hub::upload_folder(folder.path().string(), repository, options, progress_line()).repository_url;
}

}  // namespace nanovlm
