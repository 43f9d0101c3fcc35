// A checkpoint saved here has nanoVLM's keys: what its strict load_model asks for. tools/check_checkpoint.py tries that
// itself where PyTorch is.
#include <nlohmann/json.hpp>

#include "model/weights.h"
#include "tests/support/catch.h"
#include "tests/support/folder.h"
#include "tests/support/golden.h"

using namespace nanovlm;
using namespace nanovlm::testing;

namespace {

// The JSON at the beginning of a safetensors file: names, dtypes, shapes, places and metadata.
std::string header_of(const std::string& path) {
  const std::string bytes = bytes_of(path);
  uint64_t length = 0;
  std::copy_n(bytes.data(), sizeof length, reinterpret_cast<char*>(&length));
  return bytes.substr(sizeof length, length);
}

}  // namespace

TEST_CASE("a saved file's header equals the one that nanoVLM saved, byte for byte") {
  for (const std::string name : {"base", "untied", "rope-scaled"}) {
    INFO(name);
    const Folder folder;
    std::vector<std::string> warnings;
    VisionLanguageModel model = load_checkpoint(fixture("tiny-v1/" + name), Device::open("cpu"), warnings);
    save_checkpoint(model, folder.file("saved"));
    CHECK(header_of(folder.file("saved/model.safetensors")) ==
          header_of(fixture("tiny-v1/" + name + "/model.safetensors")));
  }
}

TEST_CASE("a checkpoint that can't be written leaves nothing of itself, and the older one as it was") {
  const Folder folder;
  std::vector<std::string> warnings;
  VisionLanguageModel model = load_checkpoint(fixture("tiny-v1/base"), Device::open("cpu"), warnings);
  save_checkpoint(model, folder.file("saved"), {{"note", "older"}});
  CHECK_THROWS_AS(save_checkpoint(model, folder.file("saved"), {{"note", "newer"}, {"no/such/folder", ""}}), Error);
  CHECK(bytes_of(folder.file("saved/note")) == "older");
  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    CHECK(entry.path().filename() == "saved");
}

TEST_CASE("the 222M model's tensors are nanoVLM's by name and number of elements") {
  VisionLanguageModel model(VLMConfig(), Device::open("cpu"));
  auto golden = nlohmann::json::parse(bytes_of(fixture("full-v1/parameters.json")));
  for (const auto& [name, tensor] : checkpoint_tensors(model)) {
    INFO(name);
    if (name == "decoder.rotary_embd.inv_freq") continue;  // a buffer
    // Of the tied pair the list of parameters has the one name, the file the other.
    const std::string listed = name == "decoder.head.weight" ? "decoder.token_embedding.weight" : name;
    REQUIRE(golden.contains(listed));
    CHECK(golden.at(listed).at("numel") == tensor.numel());
    golden.erase(listed);
  }
  CHECK(golden.empty());
}
