#include "apps/common/pretrained.h"

#include <filesystem>
#include <memory>

#include "apps/common/output.h"

namespace nanovlm {

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
  if (std::filesystem::is_directory(name)) return name;
  return fetch_snapshot(program, name, revision, {"config.json", "model.safetensors", "tokenizer*.json"}).folder;
}

}  // namespace nanovlm
