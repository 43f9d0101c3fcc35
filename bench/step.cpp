// bench/step [--dtype bf16,fp32] ...
//
// One training step as a whole - forward, backward, clipping, AdamW - of a small model with the real one's head size,
// sequence of 128 and layers, one block of each transformer: every kernel that a step launches, as the model launches
// it. On simt the figures of each over all its launches; `batch` samples are not scaled to any other size. Loss and
// gradient norm are held against the same step in fp32 on the cpu. The time of a step at full size is
// bench/train_step's.
#include <memory>

#include "bench/common/kernel_bench.h"
#include "bench/common/small_model.h"
#include "model/trainer.h"

using namespace nanovlm;
using namespace nanovlm::bench;

namespace {

// Random texts whose last ten tokens carry labels.
Batch random_batch(const VLMConfig& c, int64_t B, uint64_t seed) {
  constexpr int64_t kAnswer = 10;
  const Device host = Device::open("cpu");
  Random random(seed);
  std::vector<int32_t> ids, labels;
  for (int64_t i = 0; i < B * c.lm_max_length; ++i)
    ids.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(c.lm_vocab_size))));
  for (int64_t i = 0; i < B * c.lm_max_length; ++i) {
    const int64_t left = c.lm_max_length - 1 - i % c.lm_max_length;
    labels.push_back(left >= 1 && left <= kAnswer ? ids[static_cast<size_t>(i + 1)] : kIgnoredLabel);
  }
  Batch batch;
  batch.images = random_uniform({B, 3, c.vit_img_size, c.vit_img_size}, 0, 1, random, host);
  batch.input_ids = from_host(ids, {B, c.lm_max_length}, host);
  batch.labels = from_host(labels, {B, c.lm_max_length}, host);
  return batch;
}

// A model in training. The first step's numbers are kept.
class Training {
 public:
  Training(const VLMConfig& config, const Batch& batch, DType dtype, const Device& device, uint64_t seed)
      : batch_(batch), model_(config, device) {
    model_.initialise(seed);
    TrainerOptions options;
    options.dtype = dtype, options.max_grad_norm = 1.0, options.max_steps = 1000;
    trainer_.emplace(model_, options);
  }
  void step() {
    const StepResult result = trainer_->step({batch_});
    if (trainer_->steps() == 1) loss_ = result.losses[0], norm_ = result.grad_norm.value();
  }
  double loss() const { return loss_; }
  double norm() const { return norm_; }

 private:
  Batch batch_;
  VisionLanguageModel model_;
  std::optional<Trainer> trainer_;
  double loss_ = 0, norm_ = 0;
};

Instance instance_of(int64_t B, DType dtype, const Device& device, uint64_t seed) {
  const VLMConfig config = small_config();
  const Batch batch = random_batch(config, B, seed);
  const auto training = std::make_shared<Training>(config, batch, dtype, device, seed);
  const auto outcomes = [=]() -> std::vector<Outcome> {
    Training exact(config, batch, DType::f32, Device::open("cpu"), seed);
    exact.step();
    // A number is good to a rounding of its dtype: 2^-8 of it in bf16, some fp32 ulp of its sums in fp32.
    const double ulps = dtype == DType::bf16 ? 0x1p14 : 64;
    return {{"loss", {training->loss()}, {exact.loss()}, {exact.loss()}, ulps * exact.loss()},
            {"gradient norm", {training->norm()}, {exact.norm()}, {exact.norm()}, 4 * ulps * exact.norm()}};
  };
  return {[training] { training->step(); }, outcomes, {}};
}

}  // namespace

int main(int argc, char** argv) {
  KernelBench bench("step", {"step"});
  return bench.run(argc, argv, [](const Request& request) {
    std::vector<Case> cases;
    const int64_t B = request.batch_or(64, 8, 1);
    for (const DType dtype : request.dtypes) {
      Case c{"step", "step", dtype, {{"batch", B}}, 0, 0};
      c.limits.sectors = 1.35;
      c.make = [=, device = request.device](uint64_t seed) { return instance_of(B, dtype, device, seed); };
      cases.push_back(std::move(c));
    }
    return cases;
  });
}
