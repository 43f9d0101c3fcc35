// bench/decode [--dtype bf16|f32] [--tokens N] [--context N] [--config FILE.json] [--device cpu|simt|cuda]
// [--kernel OPERATION=KERNEL] [--peer CMD]
//
// Tokens a second of one sequence through the decoder (SmolLM2-135M's shapes unless --config says otherwise) with a
// cache of keys and values. Every token reads every weight once, so the bound is the weights' bytes over the speed of a
// plain read, measured in this process. Also: the time from the start of loading a checkpoint to the first token.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/common/device_choice.h"
#include "bench/common/harness.h"
#include "bench/common/memory_read.h"
#include "bench/common/peer.h"
#include "engine/json.h"
#include "engine/random.h"
#include "model/generate.h"
#include "model/weights.h"

using namespace nanovlm;
using namespace nanovlm::bench;

namespace {

struct Settings {
  std::string dtype = "bf16", config, peer;
  int64_t tokens = 64, context = 64;
  DeviceChoice device = {"cpu", {}};
};

Batch prompt_batch(const VLMConfig& config, int64_t length, const Device& device) {
  Random random(2);
  std::vector<int32_t> ids;
  for (int64_t t = 0; t < length; ++t)
    ids.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(config.lm_vocab_size))));
  Batch batch;
  batch.images = random_uniform({1, 3, config.vit_img_size, config.vit_img_size}, 0, 1, random, device);
  batch.input_ids = from_host(ids, {1, length}, device);
  return batch;
}

// Bytes of every weight that one token reads: the embedding is read once, as the head; its lookup is one row.
double weight_bytes(VisionLanguageModel& model, DType dtype) {
  double bytes = 0;
  walk(model.decoder, "", [&](const std::string&, Tensor& x) {
    bytes += static_cast<double>(x.numel()) * static_cast<double>(x.rank() > 1 ? size_of(dtype) : 4);
  });
  return bytes;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// From opening the checkpoint to the first token of an answer.
double cold_start(const VLMConfig& config, int64_t context, DType dtype, const Device& device) {
  const auto folder = std::filesystem::temp_directory_path() / text("decode_bench_", getpid());
  {
    VisionLanguageModel model(config, device);
    model.initialise(0);
    save_checkpoint(model, folder.string());
  }
  std::vector<std::string> warnings;
  const auto start = std::chrono::steady_clock::now();
  VisionLanguageModel model = load_checkpoint(folder.string(), device, warnings);
  model.to_inference(dtype);
  GenerateOptions options;
  options.dtype = dtype;
  options.sampling.greedy = true;
  options.max_new_tokens = 1;
  generate(model, prompt_batch(config, context, device), options);
  const double seconds = seconds_since(start);
  std::filesystem::remove_all(folder);
  return seconds;
}

}  // namespace

int main(int argc, char** argv) try {
  Settings s;
  Report report("decode");
  report.app().add_option("--dtype", s.dtype, "bf16 or f32")->check(CLI::IsMember({"bf16", "f32", "fp32"}));
  report.app().add_option("--tokens", s.tokens, "new tokens a run")->capture_default_str();
  report.app().add_option("--context", s.context, "tokens of the prompt, besides the picture's")->capture_default_str();
  report.app().add_option("--config", s.config, "a configuration file");
  s.device.add_to(report.app());
  report.app().add_option("--peer", s.peer, "command to compare with; its last line is JSON with tokens_per_s");
  int exit_code = 0;
  if (!report.parse(argc, argv, exit_code)) return exit_code;
  const DType dtype = s.dtype == "bf16" ? DType::bf16 : DType::f32;
  std::vector<std::string> warnings;
  const VLMConfig config = s.config.empty() ? VLMConfig{} : load_config(s.config, warnings);
  const Device device = s.device.open();
  report.set_device(device.name());
  const double cold = cold_start(config, s.context, dtype, device);

  VisionLanguageModel model(config, device);
  model.initialise(0);
  const Batch batch = prompt_batch(config, s.context, device);
  GenerateOptions options;
  options.sampling.greedy = true;
  options.stop_at_eos = false;
  options.max_new_tokens = 8;
  options.dtype = dtype;
  const auto trained = generate(model, batch, options);
  model.to_inference(dtype);
  require(generate(model, batch, options) == trained, "tokens differ from the trained weights'");

  // A token's time is what a longer answer takes more: the prompt's cost drops out.
  const auto run = [&](int64_t n) {
    options.max_new_tokens = n;
    generate(model, batch, options);
  };
  std::optional<MemoryRead> memory;  // of the host; in turns with the tokens
  if (device.kind() == DeviceKind::cpu) memory.emplace(device);
  const auto timings =
      time_in_turns({[&] { run(1); }, [&] { run(1 + s.tokens); }, [&] { memory ? memory->once() : void(); }},
                    {.min_seconds = 1, .min_samples = 9});
  const double per_token = (timings[1].median - timings[0].median) / static_cast<double>(s.tokens);
  const double bandwidth = memory ? MemoryRead::kBytes / timings[2].median : copy_rate(device);
  const double bytes = weight_bytes(model, dtype), bound = bytes / bandwidth;
  Report::Row row = {{"impl", value("ours")},
                     {"dtype", value(s.dtype)},
                     {"context", value(s.context)},
                     {"ms/token", milliseconds(per_token)},
                     {"tokens/s", value(1 / per_token, 1)},
                     {"weights MiB", value(bytes / (1 << 20), 0)}};
  if (device.kind() == DeviceKind::simt) {
    report.note("simt: the executor's own time, no GPU's");
  } else {
    row.push_back({"read GB/s", value(bandwidth * 1e-9, 1)});
    row.push_back({"% of bound", value(100 * bound / per_token, 0)});
  }
  row.push_back({"prompt ms", milliseconds(timings[0].median)});
  row.push_back({"cold start s", value(cold, 2)});
  report.add(std::move(row));
  if (!s.peer.empty()) {
    const double rate = run_peer(s.peer).at("tokens_per_s");
    report.add({{"impl", value("peer")}, {"dtype", value(s.dtype)}, {"tokens/s", value(rate, 1)}});
    report.note(text("ours is ", 1 / per_token / rate, " times the peer's tokens/s"));
  }
  return report.finish();
} catch (const std::exception& error) {
  std::cerr << "bench/decode: " << error.what() << std::endl;
  return 1;
}
