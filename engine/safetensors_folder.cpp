#include "engine/safetensors_folder.h"

#include <filesystem>

#include <nlohmann/json.hpp>

#include "engine/json.h"

namespace nanovlm {
namespace {
namespace fs = std::filesystem;

// A shard lies in the index's own folder.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == name.npos && name.find('\0') == name.npos;
}
}  // namespace

SafetensorsFolder SafetensorsFolder::open(const std::string& folder) {
  SafetensorsFolder result;
  const fs::path single = fs::path(folder) / "model.safetensors", index = single.string() + ".index.json";
  std::error_code error;
  if (!fs::exists(single, error) && fs::exists(index, error)) {
    result.path_ = index.string();
    result.read_index();
    return result;
  }
  check(fs::exists(single, error), folder, ": expected model.safetensors or model.safetensors.index.json, found ",
        fs::is_directory(folder, error) ? "neither" : "no such folder");
  result.path_ = single.string();
  result.files_.push_back(SafetensorsFile::open(result.path_));
  for (const auto& entry : result.files_[0].entries()) result.file_of_.emplace(entry.first, 0);
  return result;
}

void SafetensorsFolder::read_index() {
  const nlohmann::json document = read_json_file(path_);
  const JsonValue weight_map = JsonValue(document, path_)["weight_map"];
  weight_map.expect_object();

  std::string problems;
  std::map<std::string, size_t> shards;  // by name; SIZE_MAX: can't be read, and said so
  for (const auto& item : weight_map.json().items()) {
    const std::string& shard = weight_map[item.key()].string();
    if (!is_plain_name(shard)) weight_map[item.key()].refuse("the name of a file in the same folder");
    const auto [at, first_time] = shards.emplace(shard, files_.size());
    if (first_time) {
      try {
        files_.push_back(SafetensorsFile::open((fs::path(path_).parent_path() / shard).string()));
      } catch (const Error& error) {
        problems += text("\n  ", error.what());
        at->second = SIZE_MAX;
      }
    }
    if (at->second == SIZE_MAX) continue;
    if (!files_[at->second].contains(item.key()))
      problems += text("\n  ", item.key(), ": expected in ", shard, ", but is not there");
    file_of_.emplace(item.key(), at->second);
  }
  check(problems.empty(), path_, ": the shards are not as the index says:", problems);
}

const SafetensorsFile* SafetensorsFolder::find(const std::string& name) const {
  const auto found = file_of_.find(name);
  return found == file_of_.end() ? nullptr : &files_[found->second];
}

}  // namespace nanovlm
