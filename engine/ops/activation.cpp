#include "kernels/gelu/gelu.h"
#include "kernels/swiglu/swiglu.h"

#include "engine/ops.h"
#include "engine/ops/checks.h"

namespace nanovlm {

Tensor gelu(const Tensor& x) {
  check_contiguous("gelu", {{"x", x}});
  check_float("gelu", {{"x", x}});
  const auto forward = [](const Tensor& x) {
    Tensor y = empty_like(x);
    on(x.device(), "gelu", [&](auto backend, Stream stream) {
      kernels::gelu(backend, {x.data(), y.data(), x.numel(), x.dtype()}, stream);
    });
    return y;
  };
  const Tensor::Recipe saved = x.recipe();
  Tensor y = forward(x.detach());
  y.set_recipe([=] { return forward(saved()); });
  return record("gelu", y, {x}, [=](const Tensor& dy, const Needs&) -> Gradients {
    const Tensor kept = saved();
    Tensor dx = empty_like(kept);
    on(kept.device(), "gelu_backward", [&](auto backend, Stream stream) {
      kernels::gelu_backward(backend, {kept.data(), dy.data(), dx.data(), kept.numel(), kept.dtype()}, stream);
    });
    return {dx};
  });
}

namespace {

// Two tensors without gaps, or both halves of one: their rows are equally far apart.
struct Gated {
  Tensor gate, up;

  int64_t R() const { return gate.size(0); }
  int64_t C() const { return gate.size(1); }
  int64_t stride() const { return gate.strides()[0]; }
  Tensor forward() const {
    Tensor y = empty(gate.shape(), gate.dtype(), gate.device());
    on(gate.device(), "swiglu", [&](auto backend, Stream stream) {
      kernels::swiglu(backend, {gate.data(), up.data(), y.data(), R(), C(), stride(), gate.dtype()}, stream);
    });
    return y;
  }
  // Into tensors laid out like these.
  void backward(const Tensor& dy, const Gated& to) const {
    on(dy.device(), "swiglu_backward", [&](auto backend, Stream stream) {
      kernels::swiglu_backward(
          backend,
          {gate.data(), up.data(), dy.data(), to.gate.data(), to.up.data(), nullptr, R(), C(), stride(), dy.dtype()},
          stream);
    });
  }
};

Gated halves(const Tensor& gate_up) {
  const int64_t C = gate_up.size(1) / 2;
  return {gate_up.slice(1, 0, C), gate_up.slice(1, C, 2 * C)};
}

}  // namespace

Tensor swiglu(const Tensor& gate, const Tensor& up) {
  check(gate.rank() == 2 && gate.shape() == up.shape() && gate.dtype() == up.dtype(), "swiglu: gate is ", gate.shape(),
        " ", gate.dtype(), ", but up is ", up.shape(), " ", up.dtype());
  check_contiguous("swiglu", {{"gate", gate}, {"up", up}});
  check_float("swiglu", {{"gate", gate}, {"up", up}});
  const Gated kept = {gate.detach(), up.detach()};
  Tensor y = kept.forward();
  y.set_recipe([=] { return kept.forward(); });
  return record("swiglu", y, {gate, up}, [=](const Tensor& dy, const Needs&) -> Gradients {
    const Gated gradients = {empty_like(kept.gate), empty_like(kept.up)};
    kept.backward(dy, gradients);
    return {gradients.gate, gradients.up};
  });
}

Tensor swiglu(const Tensor& gate_up) {
  check(gate_up.rank() == 2 && gate_up.size(1) % 2 == 0, "swiglu: gate | up is ", gate_up.shape());
  check_contiguous("swiglu", {{"gate | up", gate_up}});
  check_float("swiglu", {{"gate | up", gate_up}});
  const Tensor::Recipe saved = gate_up.recipe();
  Tensor y = halves(gate_up.detach()).forward();
  y.set_recipe([=] { return halves(saved()).forward(); });
  return record("swiglu", y, {gate_up}, [=](const Tensor& dy, const Needs&) -> Gradients {
    const Tensor kept = saved();
    Tensor gradient = empty_like(kept);
    halves(kept).backward(dy, halves(gradient));
    return {gradient};
  });
}

}  // namespace nanovlm
