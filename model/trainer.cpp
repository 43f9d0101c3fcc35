#include "model/trainer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/schedule.h"
#include "kernels/elementwise/elementwise.h"

namespace nanovlm {
namespace {

double vision_rate(const TrainerOptions& options) { return options.lr_vision_backbone.value_or(options.lr_backbones); }

}  // namespace

std::vector<Trainer::Part> Trainer::parts_of(const TrainerOptions& options) {
  const auto part = [&](const char* prefix, double lr) { return Part{prefix, lr, options.freeze_at_zero && lr == 0}; };
  const std::vector<Part> parts = {part("MP.", options.lr_mp), part("vision_encoder.", vision_rate(options)),
                                   part("decoder.", options.lr_language_backbone.value_or(options.lr_backbones))};
  check(!std::all_of(parts.begin(), parts.end(), [](const Part& p) { return p.frozen; }),
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
      if (parts[i].frozen)
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
  check(model.config.vit_dropout == 0 && model.config.lm_dropout == 0, "training: vit_dropout is ",
        model.config.vit_dropout, " and lm_dropout ", model.config.lm_dropout,
        ", but must be 0: dropout is not supported");
  if (options_.freeze_at_zero && vision_rate(options_) == 0 && options_.vision_cache_bytes > 0)
    vision_cache_.emplace(model.vision_encoder, options_.dtype, options_.vision_cache_bytes);
}

Inputs Trainer::inputs_of(const Batch& batch) {
  Batch seen = batch;
  if (vision_cache_) seen.vision = (*vision_cache_)(batch.images, model_.device());
  return model_.inputs(seen, options_.padding, !options_.refuse_unlabelled);
}

std::vector<Inputs> Trainer::inputs_of(const std::vector<Batch>& micro_batches) {
  const auto same = [](const Batch& a, const Batch& b) {
    return a.images.data() == b.images.data() && a.input_ids.data() == b.input_ids.data();
  };
  const bool staged = !staged_.empty() && std::equal(micro_batches.begin(), micro_batches.end(),
                                                     staged_batches_.begin(), staged_batches_.end(), same);
  std::vector<Inputs> inputs = std::move(staged_);
  staged_.clear(), staged_batches_.clear();
  if (staged) return inputs;
  inputs.clear();
  for (const Batch& batch : micro_batches) inputs.push_back(inputs_of(batch));
  return inputs;
}

void Trainer::stage(const std::vector<Batch>& micro_batches) {
  staged_ = inputs_of(micro_batches);
  staged_batches_ = micro_batches;  // kept, so that no other batch takes their place in memory
}

StepResult Trainer::step(const std::vector<Batch>& micro_batches, int64_t accumulation,
                         const std::function<void()>& meanwhile) {
  check(!micro_batches.empty(), "a step without a batch");
  if (accumulation == 0) accumulation = static_cast<int64_t>(micro_batches.size());
  const int64_t number = optimizer_.steps();
  StepResult result;
  result.lr_mp = get_lr(number, options_.lr_mp, options_.max_steps);
  result.lr_backbones = get_lr(number, options_.lr_backbones, options_.max_steps);
  std::vector<double> lrs;
  for (const Part& part : parts_) lrs.push_back(get_lr(number, part.lr, options_.max_steps));

  const std::vector<Inputs> inputs = inputs_of(micro_batches);
  optimizer_.begin_step(lrs);
  const size_t losses = inputs.size();
  const Tensor numbers = run(inputs, accumulation);
  if (meanwhile) meanwhile();
  const std::vector<float> seen = to_host(numbers);
  const auto bad = std::find_if(seen.begin(), seen.end(), [](float x) { return !std::isfinite(x); });
  optimizer_.end_step(bad == seen.end());
  if (const auto i = static_cast<size_t>(bad - seen.begin()); i < losses)
    throw NonFiniteLoss(text("step ", number, ", micro-batch ", i, ": the loss is ", *bad), i);
  check(bad == seen.end(), "step ", number, ": the gradient's norm is ", seen.back());
  for (size_t i = 0; i < losses; ++i)
    result.losses.push_back(inputs[i].learns ? seen[i] : std::numeric_limits<double>::quiet_NaN());
  if (wants_norm()) result.grad_norm = seen.back();
  return result;
}

// Room for the losses and, where it is wanted, the gradient's norm.
Tensor Trainer::numbers_for(size_t losses) const {
  return empty({static_cast<int64_t>(losses + (wants_norm() ? 1 : 0))}, DType::f32, model_.device());
}

Tensor Trainer::run(const std::vector<Inputs>& micro_batches, int64_t accumulation) {
  const int debug = model_.device().context().debug;  // from 2 on each launch is looked at
  if (options_.recorded && debug < 2) return run_recorded(micro_batches, accumulation);
  Tensor numbers = numbers_for(micro_batches.size());
  std::optional<LaunchesOnly> launches_only;
  if (debug < 4) launches_only.emplace(model_.device());  // from 4 on every number is
  launch(micro_batches, accumulation, numbers);
  return numbers;
}

Tensor Trainer::run_recorded(const std::vector<Inputs>& micro_batches, int64_t accumulation) {
  constexpr size_t kMost = 64, kMostRehearsed = 4096;  // recordings, each of which keeps its inputs; forms
  const Device& device = model_.device();
  Form form = {accumulation};
  for (const Inputs& in : micro_batches) {
    const Form one = in.form();
    form.insert(form.end(), one.begin(), one.end());
  }

  if (const auto known = recorded_.find(form); known != recorded_.end()) {
    RecordedStep& step = known->second;
    for (size_t i = 0; i < micro_batches.size(); ++i) step.inputs[i].take(micro_batches[i]);
    step.recording->replay();
    return step.numbers;
  }
  const Tensor numbers = numbers_for(micro_batches.size());
  if (!rehearsed_.contains(form) || recorded_.size() == kMost) {
    const bool settled = Recording::rehearse(device, [&] { launch(micro_batches, accumulation, numbers); });
    // Where the pool has grown, forms that were settled may find other memory now.
    if (!settled || rehearsed_.size() == kMostRehearsed) rehearsed_.clear();
    if (settled) rehearsed_.insert(form);
    return numbers;
  }
  RecordedStep step;
  for (const Inputs& in : micro_batches) step.inputs.push_back(in.clone());
  step.numbers = numbers;
  step.recording = std::make_unique<Recording>(
      device, [this, inputs = step.inputs, accumulation, numbers] { launch(inputs, accumulation, numbers); });
  step.recording->replay();
  recorded_.emplace(form, std::move(step));
  return numbers;
}

// All kernels of a step. `numbers` are read only once it is over, so the updates look for themselves whether they are
// finite.
void Trainer::launch(const std::vector<Inputs>& micro_batches, int64_t accumulation, const Tensor& numbers) {
  const Device& device = model_.device();
  Forward run;
  run.dtype = options_.dtype;
  const auto place = [&](int64_t i) { return numbers.slice(0, i, i + 1); };

  // Where nothing needs all gradients at once, parameters are updated while the backward pass still runs, and their
  // gradients dropped: they never exist together, which saves a copy of the model.
  const bool early = numbers.numel() == 1;
  for (size_t i = 0; i < micro_batches.size(); ++i) {
    const Tensor mean = model_.loss(micro_batches[i], run);
    on(device, "cast", [&](auto backend, Stream stream) {
      kernels::cast(backend, {mean.data(), place(static_cast<int64_t>(i)).data(), 1, DType::f32, DType::f32}, stream);
    });
    const Tensor loss = accumulation == 1 ? mean : scale(mean, 1.0f / static_cast<float>(accumulation));
    if (!early) {
      backward(loss);
      continue;
    }
    optimizer_.only_if_finite(numbers);
    backward(loss, [&](Leaf& leaf) { optimizer_.take(leaf); });
  }
  if (early) return optimizer_.update_all();

  if (wants_norm()) optimizer_.clip_grad_norm(options_.max_grad_norm.value_or(0), place(numbers.numel() - 1));
  const Tensor all = empty({1}, DType::f32, device);  // their sum: finite where each is
  on(device, "sum", [&](auto backend, Stream stream) {
    kernels::sum(backend, {numbers.f32(), all.f32(), numbers.numel()}, stream);
  });
  optimizer_.only_if_finite(all);
  optimizer_.update_all();
  optimizer_.zero_grad();
}

}  // namespace nanovlm
