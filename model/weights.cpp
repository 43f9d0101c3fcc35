#include "model/weights.h"

#include <unistd.h>

#include <filesystem>
#include <memory>
#include <set>

#include "engine/file.h"
#include "engine/safetensors.h"

namespace nanovlm {
namespace {

constexpr const char* kEmbedding = "decoder.token_embedding.weight";
constexpr const char* kHead = "decoder.head.weight";
constexpr const char* kInvFreq = "decoder.rotary_embd.inv_freq";

// The name under which the file holds a parameter.
std::string name_in(const SafetensorsFile& file, const std::string& name, bool tied) {
  return tied && name == kEmbedding && !file.contains(name) ? kHead : name;
}

}  // namespace

void load_weights(VisionLanguageModel& model, const std::string& path, std::vector<std::string>& warnings) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const bool tied = model.decoder.tied();
  std::string problems;
  std::set<std::string> used = {kInvFreq};
  if (tied) used.insert(kHead), used.insert(kEmbedding);

  walk(model, "", [&](const std::string& name, Tensor& x) {
    const std::string stored = name_in(file, name, tied);
    used.insert(stored);
    if (!file.contains(stored)) {
      problems += text("\n  ", stored, ": missing, expected ", x.shape());
      return;
    }
    const SafetensorsFile::Entry& entry = file.entry(stored);
    if (entry.shape != x.shape())
      problems += text("\n  ", stored, ": shape is ", entry.shape, ", expected ", x.shape());
    if (!entry.is_float())
      problems += text("\n  ", stored, ": dtype is ", entry.dtype, ", expected F32, BF16, F16 or F64");
  });
  check(problems.empty(), path, ": does not hold the weights of this model:", problems);
  for (const auto& [name, entry] : file.entries())
    if (!used.contains(name)) warnings.push_back(text(path, ": unknown tensor \"", name, "\" is ignored"));

  std::vector<std::pair<std::string, Tensor>> tensors;
  walk(model, "",
       [&](const std::string& name, const Tensor& x) { tensors.emplace_back(name_in(file, name, tied), x.detach()); });
  file.read_f32_into(tensors);
}

VisionLanguageModel load_checkpoint(const std::string& folder, const Device& device,
                                    std::vector<std::string>& warnings) {
  VisionLanguageModel model(load_config(folder, warnings), device);
  load_weights(model, folder + "/model.safetensors", warnings);
  return model;
}

std::vector<std::pair<std::string, Tensor>> checkpoint_tensors(VisionLanguageModel& model) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  const bool tied = model.decoder.tied();
  walk(model, "", [&](const std::string& name, Tensor& x) {
    tensors.emplace_back(tied && name == kEmbedding ? kHead : name, x.detach());
  });
  const std::vector<float> frequencies = model.decoder.rotary_embd.inv_freq();
  tensors.emplace_back(kInvFreq, from_host(frequencies, {static_cast<int64_t>(frequencies.size())}, model.device()));
  return tensors;
}

void save_checkpoint(VisionLanguageModel& model, const std::string& folder,
                     const std::map<std::string, std::string>& others) {
  namespace fs = std::filesystem;
  const fs::path target = fs::path(folder).lexically_normal();
  const fs::path temporary = target.string() + ".tmp-" + std::to_string(getpid()), old = target.string() + ".old";
  // What a failure leaves is of no use, and may be what fills the disk.
  const auto clean = [](const fs::path* path) {
    std::error_code ignored;
    fs::remove_all(*path, ignored);
  };
  const std::unique_ptr<const fs::path, decltype(clean)> remains(&temporary, clean);
  std::error_code error;
  fs::remove_all(temporary, error);
  fs::create_directories(temporary, error);
  check(!error, temporary.string(), ": can't be created: ", error.message());

  for (const auto& [name, contents] : others) write_file((temporary / name).string(), contents);
  write_file((temporary / "config.json").string(), to_json_text(model.config));
  std::map<std::string, std::string> metadata;  // what safetensors' save_model notes
  if (model.decoder.tied()) metadata[kEmbedding] = kHead;
  write_safetensors((temporary / "model.safetensors").string(), checkpoint_tensors(model), metadata);

  const bool replaces = fs::exists(target, error);
  if (replaces) {
    fs::remove_all(old, error);
    fs::rename(target, old, error);
    check(!error, target.string(), ": can't be renamed to ", old.string(), ": ", error.message());
  }
  fs::rename(temporary, target, error);
  if (error && replaces) {
    std::error_code put_back;
    fs::rename(old, target, put_back);
  }
  check(!error, target.string(), ": can't be put in place: ", error.message());
  fs::remove_all(old, error);
}

}  // namespace nanovlm
