#include "engine/optimizer.h"

#include "kernels/adamw/coefficients.h"

namespace nanovlm {

AdamW::AdamW(std::vector<ParameterGroup> groups, AdamWOptions options) : options_(options), groups_(groups.size()) {
  for (size_t group = 0; group < groups.size(); ++group)
    for (const Tensor& parameter : groups[group].parameters) {
      check(parameter.leaf() != nullptr && parameter.dtype() == DType::f32, "AdamW: a parameter of shape ",
            parameter.shape(), " is ", parameter.dtype(), parameter.leaf() ? "" : " and asks for no gradient",
            ", but must be an f32 leaf");
      check(by_leaf_.emplace(parameter.leaf().get(), states_.size()).second, "AdamW: a parameter of shape ",
            parameter.shape(), " was given twice");
      const MemoryScope scope(parameter.device(), MemoryClass::optimizer);
      states_.push_back({parameter, zeros_like(parameter), zeros_like(parameter), group});
    }
  if (states_.empty()) return;
  const Device& device = states_[0].parameter.device();
  const MemoryScope scope(device, MemoryClass::optimizer);
  coefficients_ =
      empty({static_cast<int64_t>(groups_), sizeof(kernels::AdamWCoefficients) / sizeof(float)}, DType::f32, device);
}

void AdamW::begin_step(const std::vector<double>& lrs) {
  check(lrs.size() == groups_, "AdamW: ", lrs.size(), " learning rates for ", groups_, " groups");
  std::vector<kernels::AdamWCoefficients> values;
  for (const double lr : lrs)
    values.push_back(
        kernels::adamw_coefficients({t_ + 1, lr, options_.beta1, options_.beta2, options_.eps, options_.weight_decay}));
  if (coefficients_.defined()) copy_from_host(coefficients_, values.data(), coefficients_.bytes());
  clip_ = only_if_finite_ = {};
  taken_.clear(), taken_bytes_ = 0;
}

void AdamW::clip_grad_norm(double max_norm, const Tensor& norm) {
  std::vector<kernels::Gradient> gradients;
  for (const State& state : states_)
    if (const Tensor& gradient = state.parameter.grad(); gradient.defined())
      gradients.push_back({gradient.f32(), gradient.numel()});
  Tensor factor = empty({1}, DType::f32, norm.device());
  on(norm.device(), "clip_grad_norm", [&](auto backend, Stream stream) {
    const auto count = static_cast<int64_t>(gradients.size());
    kernels::clip_scale(backend, {gradients.data(), count, norm.f32(), factor.f32(), max_norm}, stream);
  });
  clip_ = max_norm > 0 ? factor : Tensor();
}

void AdamW::take(Leaf& leaf) {
  constexpr int64_t kEnough = int64_t{16} << 20;  // bytes
  const Tensor gradient = std::exchange(leaf.grad, {});
  const auto found = by_leaf_.find(&leaf);
  if (found == by_leaf_.end()) return;
  taken_.push_back({found->second, gradient});
  taken_bytes_ += gradient.bytes();
  if (taken_bytes_ >= kEnough) update_taken();
}

void AdamW::update_all() {
  for (size_t i = 0; i < states_.size(); ++i)
    if (const Tensor& gradient = states_[i].parameter.grad(); gradient.defined()) taken_.push_back({i, gradient});
  update_taken();
  clip_ = only_if_finite_ = {};
}

void AdamW::update_taken() {
  if (taken_.empty()) return;
  const auto number = [](const Tensor& x) { return x.defined() ? x.f32() : nullptr; };
  const auto* coefficients = static_cast<const kernels::AdamWCoefficients*>(coefficients_.data());
  std::vector<kernels::AdamWTensor> tensors;
  for (const auto& [i, gradient] : taken_) {
    const State& state = states_[i];
    const Tensor& p = state.parameter;
    tensors.push_back(
        {p.f32(), state.m.f32(), state.v.f32(), gradient.f32(), nullptr, coefficients + state.group, p.numel()});
  }
  on(coefficients_.device(), "adamw", [&](auto backend, Stream stream) {
    const auto count = static_cast<int64_t>(tensors.size());
    kernels::adamw(backend, {tensors.data(), count, number(clip_), number(only_if_finite_)}, stream);
  });
  taken_.clear(), taken_bytes_ = 0;
}

void AdamW::zero_grad() {
  for (State& state : states_) state.parameter.set_grad({});
}

void AdamW::end_step(bool taken) {
  only_if_finite_ = {};
  if (taken) ++t_;
}

}  // namespace nanovlm
