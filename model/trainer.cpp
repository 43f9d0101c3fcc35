#include "model/trainer.h"

#include <cmath>

#include "engine/schedule.h"

namespace nanovlm {
namespace {

std::vector<ParameterGroup> groups_of(VisionLanguageModel& model, const TrainerOptions& options) {
  ParameterGroup projector{{}, options.lr_mp}, backbones{{}, options.lr_backbones};
  walk(model, "", [&](const std::string& name, Tensor& x) {
    (name.starts_with("MP.") ? projector : backbones).parameters.push_back(x);
  });
  return {projector, backbones};
}

}  // namespace

Trainer::Trainer(VisionLanguageModel& model, TrainerOptions options)
    : model_(model), options_(std::move(options)), optimizer_(groups_of(model, options_), options_.adamw) {}

StepResult Trainer::step(const std::vector<Batch>& micro_batches, int64_t accumulation) {
  check(!micro_batches.empty(), "a step without a batch");
  if (accumulation == 0) accumulation = static_cast<int64_t>(micro_batches.size());
  const int64_t number = optimizer_.steps();
  StepResult result;
  result.lr_mp = get_lr(number, options_.lr_mp, options_.max_steps);
  result.lr_backbones = get_lr(number, options_.lr_backbones, options_.max_steps);
  const std::vector<double> lrs = {result.lr_mp, result.lr_backbones};
  Forward run;
  run.dtype = options_.dtype;

  // Where nothing needs all gradients at once, each parameter is updated as soon as its own is complete, and the
  // gradient dropped: they never exist together, which saves a copy of the model.
  const bool one_by_one = micro_batches.size() == 1 && !options_.max_grad_norm && !options_.gradient_norm;
  for (size_t i = 0; i < micro_batches.size(); ++i) {
    const Tensor mean = model_.loss(micro_batches[i], run, options_.padding);
    result.losses.push_back(mean.item());
    if (!std::isfinite(result.losses.back())) {
      optimizer_.zero_grad();
      throw NonFiniteLoss(text("step ", number, ", micro-batch ", i, ": the loss is ", result.losses.back()), i);
    }
    const Tensor loss = accumulation == 1 ? mean : scale(mean, 1.0f / static_cast<float>(accumulation));
    if (!one_by_one) {
      backward(loss);
      continue;
    }
    optimizer_.begin_step(lrs);
    backward(loss, [&](Leaf& leaf) { optimizer_.update(leaf); });
  }
  if (one_by_one) return result;

  if (options_.max_grad_norm || options_.gradient_norm) {
    result.grad_norm = optimizer_.clip_grad_norm(options_.max_grad_norm.value_or(0));
    check(std::isfinite(*result.grad_norm), "step ", number, ": the gradient's norm is ", *result.grad_norm);
  }
  optimizer_.step(lrs);
  optimizer_.zero_grad();
  return result;
}

}  // namespace nanovlm
