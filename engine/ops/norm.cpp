#include "kernels/norm/norm.h"

#include "engine/ops.h"

namespace nanovlm {
namespace {

void check_norm(const char* op, const Residual& input, const Tensor& weight) {
  const auto& [x, delta] = input;
  check(x.rank() == 2 && x.dtype() == DType::f32, op, ": x is ", x.shape(), " ", x.dtype(), ", but must be [R, C] f32");
  check(weight.shape() == Shape{x.size(1)}, op, ": weight is ", weight.shape(), ", but x is ", x.shape());
  check(!delta.defined() || delta.shape() == x.shape(), op, ": delta is ", delta.shape(), ", but x is ", x.shape());
}

// dx for x, and the same numbers rounded for delta, where they are wanted.
struct ResidualGradient {
  Tensor dx, ddelta;
  ResidualGradient(const Tensor& sum, const Needs& needs, DType dtype) : dx(empty_like(sum)) {
    if (needs[1]) ddelta = empty(sum.shape(), dtype, sum.device());
  }
};

// What the gradient needs of the rows that were normalised. Where they are the sum of rows that are kept anyway and of
// a bf16 delta, keeping the delta and adding again takes half the memory of keeping the sum.
Tensor::Recipe kept_sum(const Residual& input, Tensor& sum) {
  const auto& [x, delta] = input;
  if (delta.defined() && delta.bytes() < sum.bytes() && !x.has_recipe())
    sum.set_recipe([input = Residual{x.detach(), delta.detach()}] { return add(input); });
  return sum.recipe();
}

const float* f32_or_null(const Tensor& x) { return x.defined() ? x.f32() : nullptr; }

}  // namespace

Normed rms_norm(const Residual& input, const Tensor& weight, float eps, DType dtype) {
  check_norm("rms_norm", input, weight);
  const auto& [x, delta] = input;
  const int64_t R = x.size(0), C = x.size(1);
  const Device& device = x.device();
  const auto forward = [=](const Tensor& x, const Tensor& delta, const Tensor& sum, const Tensor& r) {
    Tensor y = empty({R, C}, dtype, x.device());
    on(x.device(), "rms_norm", [&](auto backend, Stream stream) {
      kernels::rms_norm(backend, {x.f32(), delta.data(), weight.f32(), sum.f32(), y.data(), r.f32(), R, C, eps, dtype},
                        stream);
    });
    return y;
  };
  check(!delta.defined() || delta.dtype() == dtype, "rms_norm: delta is ", delta.defined() ? delta.dtype() : dtype,
        ", but the result is ", dtype);

  const Tensor r = empty({R}, DType::f32, device);
  Tensor sum = delta.defined() ? empty({R, C}, DType::f32, device) : x.detach();
  Tensor y = forward(x, delta, sum, r);
  const Tensor::Recipe kept = kept_sum(input, sum);
  y.set_recipe([=] {
    const Tensor rows = kept();
    return forward(rows, {}, rows, r);
  });

  Node::record("rms_norm", {&sum, &y}, {x, delta, weight}, [=](const Gradients& dys, const Needs& needs) -> Gradients {
    check(dys[1].defined(), "rms_norm: no gradient arrived for the normalised rows");
    const Tensor rows = kept();
    ResidualGradient out(rows, needs, dtype);
    Tensor dweight;
    if (needs[2]) {
      const MemoryScope scope(rows.device(), MemoryClass::gradient);
      dweight = zeros({C}, DType::f32, rows.device());
    }
    on(rows.device(), "rms_norm_backward", [&](auto backend, Stream stream) {
      kernels::rms_norm_backward(backend,
                                 {dys[1].data(), rows.f32(), weight.f32(), r.f32(), f32_or_null(dys[0]), out.dx.f32(),
                                  out.ddelta.data(), dweight.defined() ? dweight.f32() : nullptr, R, C, dtype},
                                 stream);
    });
    return {out.dx, out.ddelta, dweight};
  });
  return {sum, y};
}

Normed layer_norm(const Residual& input, const Tensor& weight, const Tensor& bias, float eps, DType dtype) {
  check_norm("layer_norm", input, weight);
  check(bias.shape() == weight.shape(), "layer_norm: bias is ", bias.shape(), ", but weight is ", weight.shape());
  const auto& [x, delta] = input;
  const int64_t R = x.size(0), C = x.size(1);
  const Device& device = x.device();
  const auto forward = [=](const Tensor& x, const Tensor& delta, const Tensor& sum, const Tensor& m, const Tensor& r) {
    Tensor y = empty({R, C}, dtype, x.device());
    on(x.device(), "layer_norm", [&](auto backend, Stream stream) {
      kernels::layer_norm(
          backend,
          {x.f32(), delta.data(), weight.f32(), bias.f32(), sum.f32(), y.data(), m.f32(), r.f32(), R, C, eps, dtype},
          stream);
    });
    return y;
  };
  check(!delta.defined() || delta.dtype() == dtype, "layer_norm: delta is ", delta.defined() ? delta.dtype() : dtype,
        ", but the result is ", dtype);

  const Tensor m = empty({R}, DType::f32, device), r = empty({R}, DType::f32, device);
  Tensor sum = delta.defined() ? empty({R, C}, DType::f32, device) : x.detach();
  Tensor y = forward(x, delta, sum, m, r);
  const Tensor::Recipe kept = kept_sum(input, sum);
  y.set_recipe([=] {
    const Tensor rows = kept();
    return forward(rows, {}, rows, m, r);
  });

  Node::record(
      "layer_norm", {&sum, &y}, {x, delta, weight, bias}, [=](const Gradients& dys, const Needs& needs) -> Gradients {
        check(dys[1].defined(), "layer_norm: no gradient arrived for the normalised rows");
        const Tensor rows = kept();
        ResidualGradient out(rows, needs, dtype);
        Tensor dweight, dbias;
        if (needs[2] || needs[3]) {
          const MemoryScope scope(rows.device(), MemoryClass::gradient);
          dweight = zeros({C}, DType::f32, rows.device());
          dbias = zeros({C}, DType::f32, rows.device());
        }
        on(rows.device(), "layer_norm_backward", [&](auto backend, Stream stream) {
          kernels::layer_norm_backward(backend,
                                       {dys[1].data(), rows.f32(), weight.f32(), m.f32(), r.f32(), f32_or_null(dys[0]),
                                        out.dx.f32(), out.ddelta.data(), dweight.defined() ? dweight.f32() : nullptr,
                                        dbias.defined() ? dbias.f32() : nullptr, R, C, dtype},
                                       stream);
        });
        return {out.dx, out.ddelta, dweight, dbias};
      });
  return {sum, y};
}

}  // namespace nanovlm
