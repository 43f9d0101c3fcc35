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
}

void AdamW::clip_grad_norm(double max_norm, const Tensor& norm) {
  const Device& device = norm.device();
  // One fp64 number, kept in two fp32 places: the engine has no fp64 tensor.
  const Tensor sum = zeros({2}, DType::f32, device);
  Tensor factor = empty({1}, DType::f32, device);
  on(device, "clip_grad_norm", [&](auto backend, Stream stream) {
    double* total = static_cast<double*>(sum.data());
    for (const State& state : states_)
      if (const Tensor& gradient = state.parameter.grad(); gradient.defined())
        kernels::sum_of_squares(backend, {gradient.f32(), total, gradient.numel(), true}, stream);
    kernels::clip_scale(backend, {total, norm.f32(), factor.f32(), max_norm}, stream);
  });
  clip_ = max_norm > 0 ? factor : Tensor();
}

void AdamW::update_all() {
  for (State& state : states_)
    if (state.parameter.grad().defined()) update(state, state.parameter.grad());
  clip_ = only_if_finite_ = {};
}

void AdamW::end_step(bool taken) {
  only_if_finite_ = {};
  if (taken) ++t_;
}

void AdamW::zero_grad() {
  for (State& state : states_) state.parameter.set_grad({});
}

void AdamW::update(Leaf& leaf) {
  const auto found = by_leaf_.find(&leaf);
  if (found != by_leaf_.end()) update(states_[found->second], leaf.grad);
  leaf.grad = {};
}

void AdamW::update(State& state, const Tensor& gradient) {
  const Tensor& p = state.parameter;
  const auto number = [](const Tensor& x) { return x.defined() ? x.f32() : nullptr; };
  on(p.device(), "adamw", [&](auto backend, Stream stream) {
    const auto* coefficients =
        static_cast<const kernels::AdamWCoefficients*>(coefficients_.data()) + static_cast<ptrdiff_t>(state.group);
    kernels::adamw(backend,
                   {p.f32(), state.m.f32(), state.v.f32(), gradient.f32(), nullptr, number(clip_),
                    number(only_if_finite_), coefficients, p.numel()},
                   stream);
  });
}

}  // namespace nanovlm
