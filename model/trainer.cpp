#include "model/trainer.h"

#include <algorithm>
#include <cmath>

#include "engine/schedule.h"

namespace nanovlm {
namespace {

double vision_rate(const TrainerOptions& options) { return options.lr_vision_backbone.value_or(options.lr_backbones); }

}  // namespace

std::vector<Trainer::Part> Trainer::parts_of(const TrainerOptions& options) {
  const std::vector<Part> parts = {{"MP.", options.lr_mp},
                                   {"vision_encoder.", vision_rate(options)},
                                   {"decoder.", options.lr_language_backbone.value_or(options.lr_backbones)}};
  check(std::any_of(parts.begin(), parts.end(), [](const Part& part) { return part.lr != 0; }),
        "every learning rate is 0: there is nothing to train");
  return parts;
}

std::vector<ParameterGroup> Trainer::groups_of(VisionLanguageModel& model, const std::vector<Part>& parts) {
  std::vector<ParameterGroup> groups;
  for (const Part& part : parts) groups.push_back({{}, part.lr});
  const bool tied = model.decoder.tied();
  walk(model, "", [&](const std::string& name, Tensor& x) {
    for (size_t i = 0; i < parts.size(); ++i) {
      if (!name.starts_with(parts[i].prefix)) continue;
      if (parts[i].lr == 0)
        x = x.detach();
      else
        groups[i].parameters.push_back(x);
    }
  });
  if (tied) model.decoder.head = model.decoder.token_embedding;
  return groups;
}

Trainer::Trainer(VisionLanguageModel& model, TrainerOptions options)
    : model_(model),
      options_(std::move(options)),
      parts_(parts_of(options_)),
      optimizer_(groups_of(model, parts_), options_.adamw) {
  if (vision_rate(options_) == 0 && options_.vision_cache_bytes > 0)
    vision_cache_.emplace(model.vision_encoder, options_.dtype, options_.vision_cache_bytes);
}

Tensor Trainer::loss(const Batch& batch, const Forward& run) {
  if (!vision_cache_) return model_.loss(batch, run, options_.padding);
  Batch seen = batch;
  seen.vision = (*vision_cache_)(batch.images, model_.device());
  return model_.loss(seen, run, options_.padding);
}

StepResult Trainer::step(const std::vector<Batch>& micro_batches, int64_t accumulation) {
  check(!micro_batches.empty(), "a step without a batch");
  if (accumulation == 0) accumulation = static_cast<int64_t>(micro_batches.size());
  const int64_t number = optimizer_.steps();
  StepResult result;
  result.lr_mp = get_lr(number, options_.lr_mp, options_.max_steps);
  result.lr_backbones = get_lr(number, options_.lr_backbones, options_.max_steps);
  std::vector<double> lrs;
  for (const Part& part : parts_) lrs.push_back(get_lr(number, part.lr, options_.max_steps));
  Forward run;
  run.dtype = options_.dtype;

  // Where nothing needs all gradients at once, each parameter is updated as soon as its own is complete, and the
  // gradient dropped: they never exist together, which saves a copy of the model.
  const bool one_by_one = micro_batches.size() == 1 && !options_.max_grad_norm && !options_.gradient_norm;
  for (size_t i = 0; i < micro_batches.size(); ++i) {
    const Tensor mean = loss(micro_batches[i], run);
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
