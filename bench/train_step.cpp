// bench/train_step [--config 222m|laptop|FILE.json] [--batch N] [--dtype bf16|f32] [--padding packed|dense|both]
// [--device cpu|simt|cuda] [--cuda_graph] [--kernel OPERATION=KERNEL] [--peer CMD]
//
// One step of training: forward, backward, AdamW. The batch is synthetic but shaped like nanoVLM's data: left-padded
// texts whose lengths and label shares vary. With --peer, a command that times the same step elsewhere
// (bench/peers/train_step.py) is run on the very same batch, after ours, and the ratio printed.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "bench/common/device_choice.h"
#include "bench/common/harness.h"
#include "bench/common/peer.h"
#include "engine/json.h"
#include "engine/random.h"
#include "engine/safetensors.h"
#include "model/trainer.h"

using namespace nanovlm;
using namespace nanovlm::bench;

namespace {

struct Settings {
  std::string config = "222m", dtype = "bf16", padding = "both", peer;
  int64_t batch = 12, steps = 5;
  double fill = 0.5, label_share = 0.25;
  bool recorded = false;
  DeviceChoice device = {"cpu", {}};
};

VLMConfig config_of(const std::string& name) {
  std::vector<std::string> warnings;
  if (name == "222m") return {};
  const std::string file = name == "laptop" ? std::string(NANOVLM_ASSETS) + "/presets/easy_vqa.json" : name;
  const nlohmann::json document = read_json_file(file);
  return parse_config(document.contains("vlm") ? document["vlm"] : document, file, warnings);
}

// Texts fill `fill` of the places on average, from a quarter of that to all of it twice over; the last `label_share` of
// each carries labels.
Batch synthetic_batch(const VLMConfig& config, const Settings& s, const Device& device) {
  Random random(1);
  const int64_t B = s.batch, T = config.lm_max_length, S = config.vit_img_size;
  std::vector<int32_t> ids(static_cast<size_t>(B * T)), labels(ids.size(), kIgnoredLabel);
  std::vector<uint8_t> mask(ids.size(), 0);
  for (int64_t b = 0; b < B; ++b) {
    const double share = s.fill * (0.25 + 1.5 * random.uniform());
    const int64_t length = std::clamp<int64_t>(std::llround(share * static_cast<double>(T)), 2, T);
    const int64_t answer =
        std::clamp<int64_t>(std::llround(s.label_share * static_cast<double>(length)), 1, length - 1);
    for (int64_t t = T - length; t < T; ++t) {
      const size_t i = static_cast<size_t>(b * T + t);
      mask[i] = 1;
      ids[i] = static_cast<int32_t>(random.below(static_cast<uint64_t>(config.lm_vocab_size)));
    }
    for (int64_t t = T - answer - 1; t < T - 1; ++t)
      labels[static_cast<size_t>(b * T + t)] = ids[static_cast<size_t>(b * T + t + 1)];
  }
  std::vector<uint8_t> pixels(static_cast<size_t>(B * 3 * S * S));
  for (uint8_t& pixel : pixels) pixel = static_cast<uint8_t>(random.bits());
  return {from_host(pixels, {B, 3, S, S}, device), from_host(ids, {B, T}, device), from_host(mask, {B, T}, device),
          from_host(labels, {B, T}, device)};
}

double resident_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

// Floating-point operations of one step, of the rows that are really computed: 2 a multiply-add, backward twice
// forward.
double step_flops(const VLMConfig& c, const Layout& layout) {
  const double B = static_cast<double>(layout.B), P = static_cast<double>(c.patches()),
               C = static_cast<double>(c.vit_hidden_dim);
  const double R = static_cast<double>(layout.rows()), L = static_cast<double>(c.lm_hidden_dim);
  const double kv = static_cast<double>(c.lm_n_kv_heads * c.lm_head_dim());
  double vit_scores = 2 * B * P * P * C, lm_scores = 0;
  for (size_t b = 0; b + 1 < layout.bounds.size(); ++b) {
    const double T = layout.bounds[b + 1] - layout.bounds[b];
    lm_scores += T * (T + 1) / 2 * 2 * L;
  }
  const double vit =
      B * P *
          (3 * static_cast<double>(c.vit_patch_size * c.vit_patch_size) * C +
           static_cast<double>(c.vit_n_blocks) * (4 * C * C + 2 * C * static_cast<double>(c.vit_inter_dim))) +
      static_cast<double>(c.vit_n_blocks) * vit_scores;
  const double lm = static_cast<double>(c.lm_n_blocks) *
                    (R * (2 * L * L + 2 * L * kv + 3 * L * static_cast<double>(c.lm_inter_dim)) + lm_scores);
  const double mp = B * static_cast<double>(c.image_tokens()) * static_cast<double>(c.mp_input_dim()) * L;
  const double head = static_cast<double>(layout.targets.size()) * L * static_cast<double>(c.lm_vocab_size);
  return 3 * 2 * (vit + lm + mp + head);
}

// Saves the batch where a peer can read it.
std::string save_batch(const Batch& batch) {
  const std::string file =
      (std::filesystem::temp_directory_path() / text("train_step_", getpid(), ".safetensors")).string();
  write_safetensors(file, {{"images_u8", batch.images},
                           {"input_ids", batch.input_ids},
                           {"attention_mask", batch.attention_mask},
                           {"labels", batch.labels}});
  return file;
}

}  // namespace

int main(int argc, char** argv) try {
  Settings s;
  Report report("train_step");
  report.app().add_option("--config", s.config, "222m, laptop, or a configuration file")->capture_default_str();
  report.app().add_option("--batch", s.batch, "samples a step")->check(CLI::PositiveNumber)->capture_default_str();
  report.app().add_option("--dtype", s.dtype, "bf16 or f32 (fp32)")->check(CLI::IsMember({"bf16", "f32", "fp32"}));
  report.app()
      .add_option("--padding", s.padding, "rows that are computed")
      ->check(CLI::IsMember({"packed", "dense", "both"}));
  report.app().add_option("--fill", s.fill, "mean share of a text that is no padding")->capture_default_str();
  report.app().add_option("--label_share", s.label_share, "share of a text that carries labels")->capture_default_str();
  report.app()
      .add_option("--steps", s.steps, "timed steps at least")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  report.app().add_flag("--cuda_graph", s.recorded,
                        "record a step's launches and start them as a whole, as train does");
  s.device.add_to(report.app());
  report.app().add_option("--peer", s.peer,
                          "command to compare with; gets --batch-file FILE --dtype D --steps N --json");
  int exit_code = 0;
  if (!report.parse(argc, argv, exit_code)) return exit_code;
  if (s.dtype == "fp32") s.dtype = "f32";

  const VLMConfig config = config_of(s.config);
  const Device device = s.device.open(), host = device.kind() == DeviceKind::cpu ? device : Device::open("cpu");
  const Batch batch = synthetic_batch(config, s, host);
  report.set_device(device);
  if (device.kind() == DeviceKind::simt) report.note("simt: the executor's own time, no GPU's");
  double ours = 0, ours_mib = 0;
  for (const Padding padding : {Padding::packed, Padding::dense}) {
    const char* name = padding == Padding::packed ? "packed" : "dense";
    if (s.padding != "both" && s.padding != name) continue;
    VisionLanguageModel model(config, device);
    model.initialise(0);
    TrainerOptions options;
    options.dtype = s.dtype == "bf16" ? DType::bf16 : DType::f32;
    options.padding = padding;
    options.recorded = s.recorded;
    options.lr_mp = options.lr_backbones = 1e-4;
    options.max_steps = 1000;
    Trainer trainer(model, options);
    const double first = trainer.step({batch}).losses[0];
    require(std::isfinite(first) && std::abs(first - std::log(static_cast<double>(config.lm_vocab_size))) < 2,
            text("the first loss is ", first));
    device.context().profile = {};  // the first step is spent on choosing kernels and taking memory
    double last = first;
    // As training does it: the next step's inputs follow while the device works on this one.
    const auto meanwhile = [&] {
      if (!device.is_host()) trainer.stage({batch});
    };
    const int rehearsals = s.recorded ? 3 : 1;
    const Timing timing = time([&] { last = trainer.step({batch}, 1, meanwhile).losses[0]; },
                               {.min_seconds = 1, .min_samples = static_cast<int>(s.steps), .warmup = rehearsals});
    require(last < first, text("the loss did not fall: ", first, " to ", last));
    const Layout layout = layout_of(batch, config.image_tokens(), config.lm_vocab_size, padding, host);
    const double flops = step_flops(config, layout);
    report.add({{"impl", value("ours, " + std::string(name))},
                {"config", value(s.config)},
                {"batch", value(s.batch)},
                {"dtype", value(s.dtype)},
                {"ms", milliseconds(timing.median)},
                {"p10", milliseconds(timing.p10)},
                {"p90", milliseconds(timing.p90)},
                {"samples/s", value(static_cast<double>(s.batch) / timing.median, 2)},
                {"GFLOP/s", value(flops / timing.median * 1e-9, 1)},
                {"peak MiB", value(resident_mib(), 0)},
                {"rows", value(layout.rows())},
                {"label rows", value(static_cast<int64_t>(layout.targets.size()))}});
    report.note(std::string(name) + ": " + device.context().memory_text());
    if (ours == 0) ours = timing.median, ours_mib = resident_mib();
  }
  if (!s.peer.empty()) {
    const std::string file = save_batch(batch);
    const nlohmann::json peer =
        run_peer(text(s.peer, " --config ", s.config, " --batch ", s.batch, " --batch-file ", file, " --dtype ",
                      s.dtype == "f32" ? "fp32" : "bf16", " --steps ", s.steps, " --json"));
    std::filesystem::remove(file);
    const double seconds = peer.at("median_s"), mib = peer.at("peak_rss_mb");
    report.add({{"impl", value("peer")},
                {"config", value(s.config)},
                {"batch", value(s.batch)},
                {"dtype", value(s.dtype)},
                {"ms", milliseconds(seconds)},
                {"samples/s", value(static_cast<double>(s.batch) / seconds, 2)},
                {"peak MiB", value(mib, 0)}});
    report.note(
        text("ours is ", seconds / ours, " times the peer's samples/s, with ", ours_mib / mib, " of its memory"));
  }
  return report.finish();
} catch (const std::exception&) {
  return failed("train_step", argc, argv);
}
