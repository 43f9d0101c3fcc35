// bench/decode [--dtype bf16|f32] [--tokens N] [--context N] [--config FILE.json] [--device cpu|simt|cuda]
// [--kernel OPERATION=KERNEL] [--peer CMD]
//
// Tokens a second of one sequence through the decoder (SmolLM2-135M's shapes unless --config says otherwise) with a
// cache of keys and values. Every token reads every weight once, so the bound is the weights' bytes over the speed of a
// plain read, measured in this process. Also: the time from the start of loading a checkpoint to the first token. On
// simt no time: what the kernels of one token need and waste, of a small model unless --config names one.
//
// First the logits are held against the cpu's forward of the whole sequence in fp32, without a cache.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "bench/common/device_choice.h"
#include "bench/common/harness.h"
#include "bench/common/memory_read.h"
#include "bench/common/peer.h"
#include "bench/common/small_model.h"
#include "bench/common/static_report.h"
#include "engine/json.h"
#include "engine/random.h"
#include "model/generate.h"
#include "model/weights.h"

using namespace nanovlm;
using namespace nanovlm::bench;

namespace {

struct Settings {
  std::string dtype_name = "bf16", config, peer;
  int64_t tokens = 64, context = 0;
  DeviceChoice device = {"cpu", {}};

  DType dtype() const { return dtype_name == "bf16" ? DType::bf16 : DType::f32; }
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

GenerateOptions greedy(int64_t tokens, DType dtype) {
  GenerateOptions options;
  options.sampling.greedy = true;
  options.stop_at_eos = false;
  options.max_new_tokens = tokens;
  options.dtype = dtype;
  return options;
}

// From opening a checkpoint of the model to the first token of an answer.
double cold_start(const VLMConfig& config, int64_t context, DType dtype, const Device& device) {
  const auto folder = std::filesystem::temp_directory_path() / text("decode_bench_", getpid());
  {
    VisionLanguageModel saved(config, Device::open("cpu"));
    saved.initialise(0);
    save_checkpoint(saved, folder.string());
  }
  std::vector<std::string> warnings;
  const auto start = std::chrono::steady_clock::now();
  VisionLanguageModel model = load_checkpoint(folder.string(), device, warnings);
  model.to_inference(dtype);
  generate(model, prompt_batch(model.config, context, device), greedy(1, dtype));
  const double seconds = seconds_since(start);
  std::filesystem::remove_all(folder);
  return seconds;
}

// The logits of every new token, by one forward of prompt and tokens without a cache.
Values whole_sequence(const VisionLanguageModel& model, Batch batch, const std::vector<int32_t>& tokens, DType dtype) {
  const NoGrad no_grad(model.device());
  std::vector<int32_t> ids = to_host_i32(batch.input_ids);
  ids.insert(ids.end(), tokens.begin(), tokens.end() - 1);
  batch.input_ids = from_host(ids, {1, static_cast<int64_t>(ids.size())}, model.device());
  const VLMConfig& config = model.config;
  const Layout layout = layout_of(batch, config.image_tokens(), config.lm_vocab_size, Padding::packed, model.device());
  Forward run;
  run.dtype = dtype;
  const Inputs in = model.inputs(batch, layout);
  const Tensor h = model.decoder(model.embed(in, run), in.texts, in.rope, run);
  std::vector<int32_t> rows;
  for (size_t i = tokens.size(); i > 0; --i)
    rows.push_back(static_cast<int32_t>(layout.rows() - static_cast<int64_t>(i)));
  return values_of(model.decoder.logits(gather_rows(h, rows), run));
}

struct Decoded {
  std::vector<int32_t> tokens;
  Values logits;  // of each
};

// Some new tokens, each held against its own logits.
Decoded decode(const VisionLanguageModel& model, const Settings& s) {
  constexpr int64_t kTokens = 8;
  Decoded result;
  std::vector<int32_t> largest;
  GenerateOptions options = greedy(kTokens, s.dtype());
  options.on_logits = [&](const Tensor& next) {
    const Values row = values_of(next);
    largest.push_back(static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin()));
    result.logits.insert(result.logits.end(), row.begin(), row.end());
  };
  result.tokens = generate(model, prompt_batch(model.config, s.context, model.device()), options)[0];
  require(result.tokens == largest, "decode: a greedy token is not that of the largest logit");
  return result;
}

// Holds what the model decodes, with its trained weights and those of inference, which it is left with, against the
// reference on the cpu.
void check_decoding(const Case& c, VisionLanguageModel& model, const VisionLanguageModel& reference,
                    const Settings& s) {
  const Decoded trained = decode(model, s);
  model.to_inference(s.dtype());
  const Decoded inference = decode(model, s);
  require(inference.tokens == trained.tokens, "tokens differ from the trained weights'");
  const Batch prompt = prompt_batch(model.config, s.context, reference.device());
  const auto of = [&](DType dtype) { return whole_sequence(reference, prompt, trained.tokens, dtype); };
  const Values exact = of(DType::f32), rounded = s.dtype() == DType::f32 ? exact : of(s.dtype());
  // fp32 has no rounding but that of its sums, through all layers.
  const double terms = s.dtype() == DType::f32 ? 256 * testing::max_magnitude(exact) : 0;
  checked_error(c, "ours",
                {{"trained weights' logits", trained.logits, exact, rounded, terms},
                 {"logits", inference.logits, exact, rounded, terms}});
}

// A token's time is what a longer answer takes more: the prompt's cost drops out.
void time_tokens(VisionLanguageModel& model, const Settings& s, double cold, Report& report) {
  const Device& device = model.device();
  const Batch batch = prompt_batch(model.config, s.context, device);
  const auto run = [&](int64_t n) { generate(model, batch, greedy(n, s.dtype())); };
  std::optional<MemoryRead> memory;  // of the host; in turns with the tokens
  if (device.kind() == DeviceKind::cpu) memory.emplace(device);
  const auto timings =
      time_in_turns({[&] { run(1); }, [&] { run(1 + s.tokens); }, [&] { memory ? memory->once() : void(); }},
                    {.min_seconds = 1, .min_samples = 9});
  const double per_token = (timings[1].median - timings[0].median) / static_cast<double>(s.tokens);
  const double bandwidth = memory ? MemoryRead::kBytes / timings[2].median : copy_rate(device);
  const double bytes = weight_bytes(model, s.dtype()), bound = bytes / bandwidth;
  report.add({{"impl", value("ours")},
              {"dtype", value(s.dtype_name)},
              {"context", value(s.context)},
              {"ms/token", milliseconds(per_token)},
              {"tokens/s", value(1 / per_token, 1)},
              {"weights MiB", value(bytes / (1 << 20), 0)},
              {"read GB/s", value(bandwidth * 1e-9, 1)},
              {"% of bound", value(100 * bound / per_token, 0)},
              {"prompt ms", milliseconds(timings[0].median)},
              {"cold start s", value(cold, 2)}});
  if (s.peer.empty()) return;
  const double rate = run_peer(s.peer).at("tokens_per_s");
  report.add({{"impl", value("peer")}, {"dtype", value(s.dtype_name)}, {"tokens/s", value(rate, 1)}});
  report.note(text("ours is ", 1 / per_token / rate, " times the peer's tokens/s"));
}

// Of the second token, which is the first that the cache serves.
void count_token(const Case& c, VisionLanguageModel& model, const Settings& s, Report& report) {
  GenerateOptions options = greedy(2, s.dtype());
  int tokens = 0;
  options.on_token = [&](int64_t, int32_t) {
    if (++tokens == 1) forget_counts(model.device());
  };
  generate(model, prompt_batch(model.config, s.context, model.device()), options);
  const std::vector<simt::KernelReport> reports = counts(model.device());
  for (Report::Row& row : static_rows(c, reports, {})) report.add(std::move(row));
  for (const std::string& line : wasteful_lines(reports)) report.note(line);
  const double weights = weight_bytes(model, s.dtype());
  report.note(text("simt: products are the library's, unless --kernel matmul=gemm, and not counted: they read ",
                   weights * 1e-6, " MB of weights, at least ", weights / simt::kH100.dram_bytes * 1e6,
                   " us on an H100, ", weights / simt::kH200.dram_bytes * 1e6, " us on an H200"));
  report.note(text("simt: what the kernels of one token need and waste, counted, in a model of ",
                   model.parameter_count(), " parameters; h100_us and h200_us are lower bounds of that, no times."));
}

void measure(const VLMConfig& config, const Settings& s, Report& report) {
  const Device device = s.device.open();
  report.set_device(device);
  const bool simt = device.kind() == DeviceKind::simt;
  check(!simt || s.peer.empty(), "--peer: there is no time on simt to compare with");
  // First, as in a program that does nothing else: memory that no process has used lately comes slowly.
  const double cold = simt ? 0 : cold_start(config, s.context, s.dtype(), device);
  VisionLanguageModel model(config, device);
  model.initialise(0);
  const Case c{"decode", "token", s.dtype(), {{"context", s.context}}, 0, 0};
  {
    VisionLanguageModel reference(config, Device::open("cpu"));
    reference.initialise(0);
    check_decoding(c, model, reference, s);
  }
  simt ? count_token(c, model, s, report) : time_tokens(model, s, cold, report);
}

}  // namespace

int main(int argc, char** argv) try {
  Settings s;
  Report report("decode");
  report.app().add_option("--dtype", s.dtype_name, "bf16 or f32")->check(CLI::IsMember({"bf16", "f32", "fp32"}));
  report.app()
      .add_option("--tokens", s.tokens, "new tokens a run; not on simt")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  report.app()
      .add_option("--context", s.context, "tokens of the prompt, besides the picture's; default 64, on simt 16")
      ->check(CLI::PositiveNumber);
  report.app().add_option("--config", s.config, "a configuration file; by default the real model, on simt a small one");
  s.device.add_to(report.app());
  report.app().add_option("--peer", s.peer, "command to compare with; its last line is JSON with tokens_per_s");
  int exit_code = 0;
  if (!report.parse(argc, argv, exit_code)) return exit_code;
  const bool simt = s.device.device == "simt";
  if (s.context == 0) s.context = simt ? 16 : 64;
  std::vector<std::string> warnings;
  measure(!s.config.empty() ? load_config(s.config, warnings) : simt ? small_config() : VLMConfig{}, s, report);
  return report.finish();
} catch (const std::exception&) {
  return failed("decode", argc, argv);
}
