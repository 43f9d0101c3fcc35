#include "kernels/gelu/gelu.h"
#include "kernels/swiglu/swiglu.h"

#include "engine/ops.h"

namespace nanovlm {

Tensor gelu(const Tensor& x) {
  const auto forward = [](const Tensor& x) {
    Tensor y = empty_like(x);
    on(x.device(), "gelu", [&](auto backend, Stream stream) {
      kernels::gelu(backend, {x.data(), y.data(), x.numel(), x.dtype()}, stream);
    });
    return y;
  };
  const Tensor kept = x.detach();
  Tensor y = forward(kept);
  y.set_recipe([=] { return forward(kept); });
  return record("gelu", y, {x}, [=](const Tensor& dy, const Needs&) -> Gradients {
    Tensor dx = empty_like(kept);
    on(kept.device(), "gelu_backward", [&](auto backend, Stream stream) {
      kernels::gelu_backward(backend, {kept.data(), dy.data(), dx.data(), kept.numel(), kept.dtype()}, stream);
    });
    return {dx};
  });
}

Tensor swiglu(const Tensor& gate, const Tensor& up) {
  check(gate.shape() == up.shape() && gate.dtype() == up.dtype(), "swiglu: gate is ", gate.shape(), " ", gate.dtype(),
        ", but up is ", up.shape(), " ", up.dtype());
  const auto forward = [](const Tensor& gate, const Tensor& up) {
    Tensor y = empty_like(gate);
    on(gate.device(), "swiglu", [&](auto backend, Stream stream) {
      kernels::swiglu(backend, {gate.data(), up.data(), y.data(), gate.numel(), gate.dtype()}, stream);
    });
    return y;
  };
  const Tensor kept_gate = gate.detach(), kept_up = up.detach();
  Tensor y = forward(kept_gate, kept_up);
  y.set_recipe([=] { return forward(kept_gate, kept_up); });
  return record("swiglu", y, {gate, up}, [=](const Tensor& dy, const Needs&) -> Gradients {
    Tensor dgate = empty_like(kept_gate), dup = empty_like(kept_up);
    on(dy.device(), "swiglu_backward", [&](auto backend, Stream stream) {
      kernels::swiglu_backward(
          backend,
          {kept_gate.data(), kept_up.data(), dy.data(), dgate.data(), dup.data(), nullptr, dy.numel(), dy.dtype()},
          stream);
    });
    return {dgate, dup};
  });
}

}  // namespace nanovlm
