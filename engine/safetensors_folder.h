// The weights of a folder as Hugging Face publishes them: model.safetensors, or the shards that
// model.safetensors.index.json lists.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "engine/safetensors.h"

namespace nanovlm {

class SafetensorsFolder {
 public:
  // Where both are there, model.safetensors is read. Error: neither is; or the index and its shards don't agree, with
  // every shard that can't be read and every tensor that is not where the index says.
  static SafetensorsFolder open(const std::string& folder);

  const std::string& path() const { return path_; }  // of model.safetensors or of the index: what messages name

  // The file that holds a tensor, or null.
  const SafetensorsFile* find(const std::string& name) const;

  const std::map<std::string, size_t>& names() const { return file_of_; }  // every tensor, and the number of its file

 private:
  void read_index();

  std::string path_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t> file_of_;
};

}  // namespace nanovlm
