// bench/checkpoint [--checkpoint FOLDER] [--peer "python3 bench/peers/checkpoint.py"]
//
// Loading a checkpoint (by default one of 222M parameters, 888 MB of fp32, made for the purpose): into a model that
// exists, and together with making the model. With --peer, safetensors' Python loader on the same file beside it. The
// file is read once before, so what is timed is the way from the system's cache to the model.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "bench/common/harness.h"
#include "bench/common/peer.h"
#include "engine/safetensors.h"
#include "model/weights.h"

#include <unistd.h>

using namespace nanovlm;
using namespace nanovlm::bench;

namespace {

// A checkpoint of drawn weights that goes with this.
class Sample {
 public:
  explicit Sample(const Device& device)
      : folder_((std::filesystem::temp_directory_path() / text("bench_checkpoint_", getpid())).string()) {
    VisionLanguageModel model(VLMConfig(), device);
    model.initialise(0);
    save_checkpoint(model, folder_);
  }
  ~Sample() { std::filesystem::remove_all(folder_); }
  Sample(const Sample&) = delete;
  Sample& operator=(const Sample&) = delete;
  const std::string& folder() const { return folder_; }

 private:
  std::string folder_;
};

void require_equal(VisionLanguageModel& model, const std::string& file) {
  const SafetensorsFile stored = SafetensorsFile::open(file);
  for (const auto& [name, x] : checkpoint_tensors(model))
    if (!name.ends_with("inv_freq"))  // made anew
      require(to_host(x) == stored.read_f32(name), name + " is not what the file holds");
}

void add_row(Report& report, const std::string& what, double median, double least, int64_t bytes) {
  report.add({{"loader", value(what)},
              {"ms", milliseconds(median)},
              {"least ms", milliseconds(least)},
              {"GB/s", value(static_cast<double>(bytes) / median * 1e-9, 2)}});
}

}  // namespace

int main(int argc, char** argv) try {
  std::string checkpoint, peer;
  int exit_code = 0, runs = 7;
  Report report("checkpoint");
  report.app().add_option("--checkpoint", checkpoint, "folder; else one of 222M parameters is made");
  report.app().add_option("--runs", runs, "timed loads of each kind")->check(CLI::PositiveNumber);
  report.app().add_option("--peer", peer, "command to compare with; gets --checkpoint FOLDER --runs N --json");
  if (!report.parse(argc, argv, exit_code)) return exit_code;

  const Device device = Device::open("cpu");
  std::optional<Sample> sample;
  if (checkpoint.empty()) checkpoint = sample.emplace(device).folder();
  const std::string file = checkpoint + "/model.safetensors";
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(file));

  std::vector<std::string> warnings;
  VisionLanguageModel model = load_checkpoint(checkpoint, device, warnings);
  require_equal(model, file);
  const std::vector<Timing> timings =
      time_in_turns({[&] { load_weights(model, file, warnings); },
                     [&] { load_checkpoint(checkpoint, Device::open("cpu"), warnings); }},
                    {.min_seconds = 0, .min_samples = runs});
  add_row(report, "ours, into a model", timings[0].median, timings[0].least, bytes);
  add_row(report, "ours, with the model", timings[1].median, timings[1].least, bytes);
  if (!peer.empty()) {
    const nlohmann::json figures = run_peer(text(peer, " --checkpoint ", checkpoint, " --runs ", runs, " --json"));
    for (const char* way : {"load_model", "load_file"})
      add_row(report, text("safetensors ", way), figures.at(way).at("median_s"), figures.at(way).at("least_s"), bytes);
    const double theirs = figures.at("load_model").at("median_s");
    report.note(text("into a model: ", theirs / timings[0].median, " times safetensors' load_model"));
  }
  report.note(text(bytes, " bytes in the system's cache"));
  return report.finish();
} catch (const std::exception&) {
  return failed("checkpoint", argc, argv);
}
