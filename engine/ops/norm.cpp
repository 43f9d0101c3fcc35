#include "kernels/norm/norm.h"

#include "engine/ops.h"
#include "engine/ops/checks.h"

namespace nanovlm {
namespace {

void check_norm(const char* op, const Residual& input, const Tensor& weight, DType dtype) {
  const auto& [x, delta] = input;
  check(x.rank() == 2 && x.dtype() == DType::f32, op, ": x is ", x.shape(), " ", x.dtype(), ", but must be [R, C] f32");
  check(weight.shape() == Shape{x.size(1)}, op, ": weight is ", weight.shape(), ", but x is ", x.shape());
  check(!delta.defined() || delta.shape() == x.shape(), op, ": delta is ", delta.shape(), ", but x is ", x.shape());
  check_contiguous(op, {{"x", x}, {"delta", delta}, {"weight", weight}});
  check_float_result(op, x, dtype);
}

// dx for x, and the same numbers rounded for delta, where they are wanted.
struct ResidualGradient {
  Tensor dx, ddelta;
  ResidualGradient(const Tensor& sum, const Needs& needs, DType dtype) : dx(empty_like(sum)) {
    if (needs[1]) ddelta = empty(sum.shape(), dtype, sum.device());
  }
};

// What the gradient keeps of the rows that were normalised: their sum, or, where x is kept anyway and a bf16 delta is
// half of the sum, what it is a sum of. The kernels add again.
Residual kept_of(const Residual& input, Tensor& sum) {
  const auto& [x, delta] = input;
  if (!delta.defined() || delta.bytes() >= sum.bytes() || x.has_recipe()) return {sum.detach(), {}};
  const Residual kept = {x.detach(), delta.detach()};
  sum.set_recipe([kept] { return add(kept); });
  return kept;
}

float* f32_or_null(const Tensor& x) { return x.defined() ? x.f32() : nullptr; }

}  // namespace

Normed rms_norm(const Residual& input, const Tensor& weight, float eps, DType dtype) {
  check_norm("rms_norm", input, weight, dtype);
  const auto& [x, delta] = input;
  const int64_t R = x.size(0), C = x.size(1);
  const Device device = x.device();
  const auto forward = [=](const Residual& in, const Tensor& sum, const Tensor& r) {
    Tensor y = empty({R, C}, dtype, in.x.device());
    on(in.x.device(), "rms_norm", [&](auto backend, Stream stream) {
      kernels::rms_norm(
          backend, {in.x.f32(), in.delta.data(), weight.f32(), f32_or_null(sum), y.data(), r.f32(), R, C, eps, dtype},
          stream);
    });
    return y;
  };
  check(!delta.defined() || delta.dtype() == dtype, "rms_norm: delta is ", delta.defined() ? delta.dtype() : dtype,
        ", but the result is ", dtype);

  const Tensor r = empty({R}, DType::f32, device);
  Tensor sum = delta.defined() ? empty({R, C}, DType::f32, device) : x.detach();
  Tensor y = forward(input, sum, r);
  const Residual kept = kept_of(input, sum);
  y.set_recipe([=] { return forward(kept, {}, r); });

  Node::record("rms_norm", {&sum, &y}, {x, delta, weight}, [=](const Gradients& dys, const Needs& needs) -> Gradients {
    check(dys[1].defined(), "rms_norm: no gradient arrived for the normalised rows");
    ResidualGradient out(kept.x, needs, dtype);
    Tensor dweight;
    if (needs[2]) {
      const MemoryScope scope(device, MemoryClass::gradient);
      dweight = zeros({C}, DType::f32, device);
    }
    on(device, "rms_norm_backward", [&](auto backend, Stream stream) {
      kernels::rms_norm_backward(
          backend,
          {dys[1].data(), kept.x.f32(), kept.delta.data(), weight.f32(), r.f32(), f32_or_null(dys[0]), out.dx.f32(),
           out.ddelta.data(), dweight.defined() ? dweight.f32() : nullptr, R, C, dtype},
          stream);
    });
    return {out.dx, out.ddelta, dweight};
  });
  return {sum, y};
}

Normed layer_norm(const Residual& input, const Tensor& weight, const Tensor& bias, float eps, DType dtype) {
  check_norm("layer_norm", input, weight, dtype);
  check(bias.shape() == weight.shape(), "layer_norm: bias is ", bias.shape(), ", but weight is ", weight.shape());
  check_contiguous("layer_norm", {{"bias", bias}});
  const auto& [x, delta] = input;
  const int64_t R = x.size(0), C = x.size(1);
  const Device device = x.device();
  const auto forward = [=](const Residual& in, const Tensor& sum, const Tensor& m, const Tensor& r) {
    Tensor y = empty({R, C}, dtype, in.x.device());
    on(in.x.device(), "layer_norm", [&](auto backend, Stream stream) {
      kernels::layer_norm(backend,
                          {in.x.f32(), in.delta.data(), weight.f32(), bias.f32(), f32_or_null(sum), y.data(), m.f32(),
                           r.f32(), R, C, eps, dtype},
                          stream);
    });
    return y;
  };
  check(!delta.defined() || delta.dtype() == dtype, "layer_norm: delta is ", delta.defined() ? delta.dtype() : dtype,
        ", but the result is ", dtype);

  const Tensor m = empty({R}, DType::f32, device), r = empty({R}, DType::f32, device);
  Tensor sum = delta.defined() ? empty({R, C}, DType::f32, device) : x.detach();
  Tensor y = forward(input, sum, m, r);
  const Residual kept = kept_of(input, sum);
  y.set_recipe([=] { return forward(kept, {}, m, r); });

  Node::record(
      "layer_norm", {&sum, &y}, {x, delta, weight, bias}, [=](const Gradients& dys, const Needs& needs) -> Gradients {
        check(dys[1].defined(), "layer_norm: no gradient arrived for the normalised rows");
        ResidualGradient out(kept.x, needs, dtype);
        Tensor dweight, dbias;
        if (needs[2] || needs[3]) {
          const MemoryScope scope(device, MemoryClass::gradient);
          dweight = zeros({C}, DType::f32, device);
          dbias = zeros({C}, DType::f32, device);
        }
        on(device, "layer_norm_backward", [&](auto backend, Stream stream) {
          kernels::layer_norm_backward(
              backend,
              {dys[1].data(), kept.x.f32(), kept.delta.data(), weight.f32(), m.f32(), r.f32(), f32_or_null(dys[0]),
               out.dx.f32(), out.ddelta.data(), dweight.defined() ? dweight.f32() : nullptr,
               dbias.defined() ? dbias.f32() : nullptr, R, C, dtype},
              stream);
        });
        return {out.dx, out.ddelta, dweight, dbias};
      });
  return {sum, y};
}

}  // namespace nanovlm
