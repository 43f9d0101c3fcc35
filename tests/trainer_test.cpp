// Optimizer steps against nanoVLM's train.py: rates, losses, gradient norms, weights.
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/batch_file.h"
#include "engine/recording.h"
#include "engine/schedule.h"
#include "model/trainer.h"
#include "model/weights.h"
#if defined(NANOVLM_SIMT_KERNELS)
#include "kernels/simt/executor.h"
#endif
#include "tests/support/devices.h"
#include "tests/support/golden.h"

using namespace nanovlm;
using namespace nanovlm::testing;

namespace {

struct Run {
  std::string name;
  nlohmann::json golden;
  std::vector<double> losses;
  std::vector<StepResult> steps;
  int64_t accumulation = 1;

  explicit Run(const std::string& name)
      : name(name), golden(nlohmann::json::parse(std::ifstream(fixture("train-v1/" + name + ".json")))) {}

  TrainerOptions options() const {
    TrainerOptions options;
    options.lr_mp = golden["lr_mp"];
    options.lr_backbones = golden["lr_backbones"];
    if (!golden["max_grad_norm"].is_null()) options.max_grad_norm = golden["max_grad_norm"].get<double>();
    options.max_steps = golden["max_steps_of_get_lr"];
    options.dtype = golden["autocast_bf16"].get<bool>() ? DType::bf16 : DType::f32;
    return options;
  }

  // Trains `model` as train.py does: epochs of micro-batches, a short last group kept.
  void train(VisionLanguageModel& model, TrainerOptions options) {
    const BatchFile batches(fixture("train-v1/batches.safetensors"));
    accumulation = golden["gradient_accumulation_steps"];
    const int64_t per_epoch = golden["micro_batches_per_epoch"], epochs = golden["epochs"];
    Trainer trainer(model, options);
    for (int64_t epoch = 0; epoch < epochs; ++epoch)
      for (int64_t first = 0; first < per_epoch; first += accumulation) {
        std::vector<Batch> group;
        for (int64_t i = first; i < std::min(first + accumulation, per_epoch); ++i)
          group.push_back(batches.read(epoch * per_epoch + i));
        steps.push_back(trainer.step(group, accumulation));
        losses.insert(losses.end(), steps.back().losses.begin(), steps.back().losses.end());
      }
  }
};

VisionLanguageModel initial_model(const Device& device) {
  std::vector<std::string> warnings;
  VisionLanguageModel model(load_config(fixture("train-v1/config.json"), warnings), device);
  load_weights(model, fixture("train-v1/model.safetensors"), warnings);
  CHECK(warnings.empty());
  return model;
}

Batch unlabelled(Batch batch) {
  const std::vector<int32_t> labels(static_cast<size_t>(batch.labels.numel()), kIgnoredLabel);
  batch.labels = from_host(labels, batch.labels.shape(), batch.labels.device());
  return batch;
}

void check_steps(const Run& run, double loss_tolerance, double norm_tolerance) {
  const auto& losses = run.golden["per_micro_batch"]["loss"];
  const auto& per_step = run.golden["per_step"];
  REQUIRE(run.losses.size() == losses.size());
  for (size_t i = 0; i < losses.size(); ++i) CHECK(std::abs(run.losses[i] - losses[i].get<double>()) <= loss_tolerance);
  REQUIRE(run.steps.size() == run.golden["optimiser_steps"].get<size_t>());
  for (size_t i = 0; i < run.steps.size(); ++i) {
    CHECK(run.steps[i].lr_mp == Approx(per_step["lr_mp"][i].get<double>()).epsilon(1e-12));
    CHECK(run.steps[i].lr_backbones == Approx(per_step["lr_backbones"][i].get<double>()).epsilon(1e-12));
    if (run.steps[i].grad_norm)
      CHECK(*run.steps[i].grad_norm ==
            Approx(per_step["grad_norm_before_clipping"][i].get<double>()).epsilon(norm_tolerance));
  }
}

void check_weights(VisionLanguageModel& model, const Run& run) {
  const SafetensorsFile golden = SafetensorsFile::open(fixture("train-v1/" + run.name + ".safetensors"));
  const double reach =
      static_cast<double>(run.steps.size()) * 2e-3;  // what Adam can move an entry of pure rounding noise
  int64_t beyond = 0, total = 0;
  double squares = 0;
  walk(model, "", [&](const std::string& name, Tensor& x) {
    INFO(name);
    const std::vector<float> a = to_host(x), b = golden.read_f32("final." + name);
    REQUIRE(a.size() == b.size());
    const bool qkv_bias = name.find("qkv_proj.bias") != std::string::npos;
    for (size_t i = 0; i < a.size(); ++i) {
      const double error = std::abs(double{a[i]} - b[i]);
      REQUIRE(error <= reach);
      if (qkv_bias && i >= a.size() / 3 && i < a.size() / 3 * 2) continue;  // gradient zero but for rounding
      beyond += error > 1e-4;
      squares += error * error;
      ++total;
    }
  });
  CHECK(beyond <= total / 10000);
  CHECK(std::sqrt(squares / static_cast<double>(total)) <= 1e-5);
}

}  // namespace

TEST_CASE("training follows train.py: clipping, accumulation, a short last group") {
  const Device device = Device::open("cpu");
  for (const std::string name : {"accum1-clip", "accum4", "accum4-tail"}) {
    INFO("run: " << name);
    Run run(name);
    VisionLanguageModel model = initial_model(device);
    TrainerOptions options = run.options();
    options.gradient_norm = true;
    run.train(model, options);
    check_steps(run, 5e-4, 1e-3);
    check_weights(model, run);
  }
}

TEST_CASE("every device trains alike") {
  std::vector<std::vector<double>> losses;
  for (const Device& device : devices()) {
    INFO("device: " << device.name());
    Run run("accum1-clip");
    VisionLanguageModel model = initial_model(device);
    run.train(model, run.options());
    check_steps(run, 5e-4, 1e-3);
    check_weights(model, run);
    losses.push_back(run.losses);
  }
  for (size_t i = 0; i < losses[0].size(); ++i) CHECK(std::abs(losses.back()[i] - losses[0][i]) <= 1e-4);
}

TEST_CASE("updating each parameter during the backward pass changes no bit") {
  const Device device = Device::open("cpu");
  std::vector<std::vector<double>> losses;
  for (const bool together : {false, true}) {
    Run run("accum1");
    VisionLanguageModel model = initial_model(device);
    TrainerOptions options = run.options();
    options.gradient_norm = together;  // asks for all gradients at once
    run.train(model, options);
    check_steps(run, 5e-4, 1e-3);
    losses.push_back(run.losses);
  }
  CHECK(losses[0] == losses[1]);
}

#if defined(NANOVLM_SIMT_KERNELS)
TEST_CASE("all parameters of a small model are updated by one launch") {
  const Device device = Device::open("simt");
  const Batch batch = BatchFile(fixture("train-v1/batches.safetensors")).read(0);
  for (const bool clipped : {false, true}) {
    VisionLanguageModel model = initial_model(device);
    TrainerOptions options;
    if (clipped) options.max_grad_norm = 1;
    Trainer trainer(model, options);
    device.context().executor->clear_reports();
    trainer.step({batch});
    std::map<std::string, int64_t> launches;
    for (const simt::KernelReport& report : device.context().executor->reports())
      launches[report.kernel] = report.launches;
    CHECK(launches["adamw"] == 1);
    CHECK(launches["sum_of_squares"] == (clipped ? 1 : 0));
    CHECK(launches["clip_scale"] == (clipped ? 1 : 0));
  }
}
#endif

TEST_CASE("steps whose launches are recorded change no bit") {
  const BatchFile file(fixture("train-v1/batches.safetensors"));
  const std::vector<std::vector<Batch>> groups = {{file.read(0)}, {file.read(1), file.read(2), file.read(3)}};
  for (const Device& device : devices())
    for (const bool clipped : {false, true}) {
      INFO("device: " << device.name() << (clipped ? ", clipped" : ", bf16"));
      std::vector<std::vector<double>> losses(2);
      std::vector<std::vector<float>> weights;
      for (const bool recorded : {false, true}) {
        VisionLanguageModel model = initial_model(device);
        TrainerOptions options;
        options.max_steps = 100;
        options.dtype = clipped ? DType::f32 : DType::bf16;
        if (clipped) options.max_grad_norm = 1;
        options.recorded = recorded;
        Trainer trainer(model, options);
        for (int turn = 0; turn < 4; ++turn)
          for (const std::vector<Batch>& group : groups)
            for (const double loss : trainer.step(group).losses) losses[recorded].push_back(loss);
        CHECK(trainer.recordings() == (recorded ? groups.size() : 0));
        weights.push_back(to_host(model.MP.proj.weight));
      }
      CHECK(losses[0] == losses[1]);
      CHECK(weights[0] == weights[1]);
    }
}

TEST_CASE("recorded launches: memory that is not settled, that is kept, and other work in between") {
  constexpr int64_t n = 1 << 20;
  const auto all = [](float value) { return std::vector<float>(n, value); };
  for (const Device& device : devices()) {
    INFO("device: " << device.name());
    const Tensor x = from_host(all(1), {n}, device), y = empty_like(x);
    const auto work = [=] {
      const Tensor doubled = scale(scale(x, 4.0f), 0.5f);
      device.copy(y.data(), doubled.data(), y.bytes());
    };
    CHECK_FALSE(Recording::rehearse(device, work));
    CHECK(Recording::rehearse(device, work));
    Recording recording(device, work);
    recording.replay();
    CHECK(to_host(y) == all(2));
    const Tensor between = scale(x, 3.0f);
    copy_from_host(x, all(8).data(), x.bytes());
    recording.replay();
    CHECK(to_host(y) == all(16));
    CHECK(to_host(between) == all(3));

    Tensor kept;
    CHECK_THROWS_WITH(Recording::rehearse(device, [&] { kept = scale(x, 1.0f); }), contains("still in use after them"));
    kept = {};
    CHECK_THROWS_WITH(Recording::rehearse(device, [&] { x.slice(0, 0, 1).item(); }), contains("launches only"));
    const auto larger = [&] { zeros({int64_t{64} << 20}, DType::f32, device); };
    CHECK_THROWS_WITH(Recording(device, larger).replay(), contains("while launches are recorded"));
    CHECK(to_host(scale(y, 0.5f)) == all(8));
  }
}

TEST_CASE("bf16 training stays near autocast's") {
  for (const Device& device : devices()) {
    INFO("device: " << device.name());
    Run run("accum1-clip-bf16");
    VisionLanguageModel model = initial_model(device);
    run.train(model, run.options());
    check_steps(run, 0.4, 0.05);
  }
}

TEST_CASE("a loss that is not finite stops before the weights change") {
  for (const Device& device : devices())
    for (const bool together : {false, true}) {
      INFO("device: " << device.name());
      VisionLanguageModel model = initial_model(device);
      std::map<std::string, std::vector<float>> before;
      walk(model, "", [&](const std::string& name, const Tensor& x) { before[name] = to_host(x); });
      const Batch good = BatchFile(fixture("train-v1/batches.safetensors")).read(0);
      Batch batch = good;
      const std::vector<float> pixels(static_cast<size_t>(batch.images.numel()), std::nanf(""));
      batch.images = from_host(pixels, batch.images.shape(), device);
      TrainerOptions options;
      options.gradient_norm = together;  // asks for all gradients at once
      Trainer trainer(model, options);
      CHECK_THROWS_WITH(trainer.step(together ? std::vector{good, batch} : std::vector{batch}),
                        "step 0, micro-batch " + std::string(together ? "1" : "0") + ": the loss is nan");
      CHECK(trainer.steps() == 0);
      walk(model, "", [&](const std::string& name, const Tensor& x) {
        INFO(name);
        CHECK(to_host(x) == before[name]);
      });
    }
}

TEST_CASE("what LaunchesOnly forbids is named") {
  for (const Device& device : devices()) {
    const Tensor x = zeros({2}, DType::f32, device);
    {
      const LaunchesOnly scope(device);
      CHECK_THROWS_WITH(x.slice(0, 0, 1).item(), "download of 4 bytes where the device is given launches only");
      CHECK_THROWS_WITH(from_host(std::vector<int32_t>{1, 2, 3}, {3}, device),
                        "upload of 12 bytes where the device is given launches only");
      CHECK_THROWS_WITH(device.synchronise(), contains("synchronise"));
      CHECK_NOTHROW(zeros({3, 3}, DType::bf16, device));
    }
    CHECK(to_host(x) == std::vector<float>(2));
  }
}

// Each of these would otherwise have passed unnoticed on a device whose memory is the host's.
TEST_CASE("from its inputs on a step is launches alone, and the same ones for inputs of one form") {
  for (const Device& device : devices()) {
    INFO("device: " << device.name());
    VisionLanguageModel model = initial_model(device);
    const BatchFile file(fixture("train-v1/batches.safetensors"));
    const Inputs first = model.inputs(file.read(0), Padding::dense),
                 second = model.inputs(file.read(1), Padding::dense);
    Forward run;
    const auto loss_of = [&](const Inputs& in) {
      Tensor loss;
      {
        const LaunchesOnly scope(device);
        loss = model.loss(in, run);
        backward(loss);
        walk(model, "", [](const std::string&, Tensor& x) { x.set_grad({}); });
      }
      return loss.item();
    };
    const double one = loss_of(first), other = loss_of(second);
    CHECK(one != other);
    if (first.form() == second.form()) {
      first.take(second);
      CHECK(loss_of(first) == other);
    } else {
      CHECK_THROWS_WITH(first.take(second), contains("another form"));
    }
  }
}

TEST_CASE("a batch whose labels are all masked is an error that says so") {
  VisionLanguageModel model = initial_model(Device::open("cpu"));
  Trainer trainer(model, {});
  CHECK_THROWS_WITH(trainer.step({unlabelled(BatchFile(fixture("train-v1/batches.safetensors")).read(0))}),
                    contains("ignored"));
}

TEST_CASE("a batch whose labels are all masked is a step of gradient 0 where none is refused, as in nanoVLM v1") {
  const BatchFile file(fixture("train-v1/batches.safetensors"));
  const Batch good = file.read(0), empty = unlabelled(file.read(1));
  for (const Device& device : devices())
    for (const bool together : {false, true}) {
      INFO("device: " << device.name() << (together ? ", all gradients at once" : ""));
      TrainerOptions options;
      options.refuse_unlabelled = false;
      options.recorded = options.gradient_norm = together;
      options.max_steps = 100;
      options.adamw.eps = 1e-20;  // below every gradient
      const auto trained = [&](const std::vector<std::vector<Batch>>& steps, std::vector<double>& losses) {
        VisionLanguageModel model = initial_model(device);
        Trainer trainer(model, options);
        for (const std::vector<Batch>& step : steps) {
          const StepResult result = trainer.step(step, 2);
          losses.insert(losses.end(), result.losses.begin(), result.losses.end());
        }
        CHECK(trainer.steps() == static_cast<int64_t>(steps.size()));
        std::vector<std::vector<float>> weights;
        walk(model, "", [&](const std::string&, const Tensor& x) { weights.push_back(to_host(x)); });
        return weights;
      };
      std::vector<double> one, two, mixed;
      const auto first = trained({{good}}, one), second = trained({{good}, {empty}}, two);
      CHECK((two.size() == 2 && two[0] == one[0] && std::isnan(two[1])));
      // It adds nothing to the others of its step.
      if (together) CHECK(trained({{empty, good}}, mixed) == first);
      CHECK((!together || (std::isnan(mixed.at(0)) && mixed.at(1) == one[0])));

      // Weights decay, and momentum goes on: AdamW moves a weight by 0.9 / 1.9 over the root of 0.999 / 1.999 of what
      // it moved it by first.
      VisionLanguageModel untouched = initial_model(device);
      size_t i = 0;
      walk(untouched, "", [&](const std::string& name, const Tensor& x) {
        INFO(name);
        const double peak = name.starts_with("MP.") ? options.lr_mp : options.lr_backbones;
        const double lr1 = get_lr(0, peak, options.max_steps), lr2 = get_lr(1, peak, options.max_steps);
        const std::vector<float> before = to_host(x);
        size_t wrong = 0;
        for (size_t k = 0; k < before.size(); ++k) {
          const double moved = first[i][k] - before[k] * (1 - 0.01 * lr1);
          const double expected = first[i][k] * (1 - 0.01 * lr2) + 0.67006 * lr2 / lr1 * moved;
          wrong += std::abs(second[i][k] - expected) > 1e-3 * lr2 + 3e-7 * std::abs(expected);
        }
        CHECK(wrong == 0);
        ++i;
      });
    }
}

TEST_CASE("a model with dropout can't be trained") {
  VisionLanguageModel model = initial_model(Device::open("cpu"));
  model.config.lm_dropout = 0.1;
  CHECK_THROWS_WITH(Trainer(model, {}), contains("lm_dropout 0.1"));
}

TEST_CASE("a part whose rate is 0 keeps every bit, and the others learn as if it were there") {
  for (const Device& device : devices()) {
    INFO("device: " << device.name());
    const Batch batch = BatchFile(fixture("train-v1/batches.safetensors")).read(0);
    const auto trained = [&](TrainerOptions options) {
      VisionLanguageModel model = initial_model(device);
      options.max_steps = 100;
      Trainer trainer(model, options);
      trainer.step({batch});
      std::map<std::string, std::vector<float>> numbers;
      walk(model, "", [&](const std::string& name, const Tensor& x) { numbers[name] = to_host(x); });
      return numbers;
    };
    VisionLanguageModel untouched = initial_model(device);
    std::map<std::string, std::vector<float>> before;
    walk(untouched, "", [&](const std::string& name, const Tensor& x) { before[name] = to_host(x); });
    TrainerOptions options;
    const auto all = trained(options);
    for (const std::string frozen : {"vision_encoder.", "decoder.", "MP."}) {
      TrainerOptions some = options;
      if (frozen == "vision_encoder.") some.lr_vision_backbone = 0;
      if (frozen == "decoder.") some.lr_language_backbone = 0;
      if (frozen == "MP.") some.lr_mp = 0;
      for (const auto& [name, numbers] : trained(some)) {
        INFO("frozen: " << frozen << ", parameter: " << name);
        CHECK(numbers == (name.starts_with(frozen) ? before : all).at(name));
      }
    }
    TrainerOptions none = options;
    none.lr_mp = none.lr_backbones = 0;
    CHECK_THROWS_AS(trained(none), Error);
  }
}

TEST_CASE("a part whose rate is 0 counts in the gradient's norm where it is not frozen, as in nanoVLM v1") {
  for (const Device& device : devices()) {
    INFO("device: " << device.name());
    const Batch batch = BatchFile(fixture("train-v1/batches.safetensors")).read(0);
    const auto norm = [&](TrainerOptions options) {
      VisionLanguageModel model = initial_model(device);
      std::vector<std::vector<float>> before;
      walk(model, "", [&](const std::string&, const Tensor& x) { before.push_back(to_host(x)); });
      options.max_grad_norm = 1;
      options.vision_cache_bytes = 1 << 20;
      const double result = *Trainer(model, options).step({batch}).grad_norm;
      size_t i = 0;
      walk(model, "", [&](const std::string& name, const Tensor& x) {
        INFO(name);
        const double rate = name.starts_with("MP.") ? options.lr_mp : options.lr_backbones;
        CHECK((to_host(x) == before[i++]) == (rate == 0));
      });
      return result;
    };
    TrainerOptions all, none;
    none.lr_mp = none.lr_backbones = 0;
    none.freeze_at_zero = false;
    const double expected = norm(all);
    CHECK(norm(none) == expected);
    TrainerOptions projector;
    projector.lr_backbones = 0;
    CHECK(norm(projector) < 0.9 * expected);
    projector.freeze_at_zero = false;
    CHECK(norm(projector) == expected);
  }
}

TEST_CASE("the outputs of a frozen vision encoder are kept, and change nothing") {
  const BatchFile file(fixture("train-v1/batches.safetensors"));
  const std::vector<Batch> batches = {file.read(0), file.read(1), file.read(0), file.read(1), file.read(0)};
  for (const Device& device : devices())
    for (const DType dtype : {DType::f32, DType::bf16}) {
      INFO("device: " << device.name() << ", dtype: " << dtype);
      VisionCache::Counts counts;
      const auto losses = [&](int64_t cache_bytes) {
        VisionLanguageModel model = initial_model(device);
        TrainerOptions options;
        options.max_steps = 100;
        options.lr_vision_backbone = 0;
        options.vision_cache_bytes = cache_bytes;
        options.dtype = dtype;
        Trainer trainer(model, options);
        std::vector<double> result;
        for (const Batch& batch : batches) result.push_back(trainer.step({batch}).losses[0]);
        CHECK((trainer.vision_cache() != nullptr) == (cache_bytes > 0));
        if (trainer.vision_cache()) counts = trainer.vision_cache()->counts();
        return result;
      };
      const std::vector<double> computed = losses(0);
      CHECK(losses(1 << 30) == computed);
      int64_t pictures = 0;
      for (const Batch& batch : batches) pictures += batch.size();
      const int64_t distinct = batches[0].size() + batches[1].size();
      CHECK(counts.asked == pictures);
      CHECK(counts.found == pictures - distinct);

      const int64_t one = counts.kept_bytes / distinct;  // room for three pictures and a bit
      CHECK(losses(3 * one + 1) == computed);
      CHECK(counts.kept_bytes == 3 * one);
      CHECK(counts.found > 0);
    }
}
