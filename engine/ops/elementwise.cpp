#include "kernels/elementwise/elementwise.h"

#include "engine/ops.h"
#include "engine/ops/checks.h"

namespace nanovlm {

Tensor cast(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  check_contiguous("cast", {{"x", x}});
  check_float("cast", {{"x", x}});
  check_float_result("cast", x, dtype);
  Tensor y = empty(x.shape(), dtype, x.device());
  on(x.device(), "cast", [&](auto backend, Stream stream) {
    kernels::cast(backend, {x.data(), y.data(), x.numel(), x.dtype(), dtype}, stream);
  });
  return record("cast", y, {x},
                [from = x.dtype()](const Tensor& dy, const Needs&) -> Gradients { return {cast(dy, from)}; });
}

Tensor unit_range(const Tensor& pixels) {
  if (pixels.dtype() == DType::f32) return pixels;
  check_contiguous("unit_range", {{"pixels", pixels}});
  const auto forward = [pixels] {
    Tensor y = empty(pixels.shape(), DType::f32, pixels.device());
    on(pixels.device(), "unit_range", [&](auto backend, Stream stream) {
      kernels::unit_range(backend, {pixels.u8(), y.f32(), pixels.numel()}, stream);
    });
    return y;
  };
  return forward().set_recipe(forward);
}

Tensor scale(const Tensor& x, float factor) {
  check_contiguous("scale", {{"x", x}});
  check_float("scale", {{"x", x}});
  Tensor y = empty_like(x);
  on(x.device(), "scale", [&](auto backend, Stream stream) {
    kernels::scale(backend, {x.data(), y.data(), x.numel(), factor, nullptr, x.dtype()}, stream);
  });
  return record("scale", y, {x}, [factor](const Tensor& dy, const Needs&) -> Gradients { return {scale(dy, factor)}; });
}

Tensor add(const Residual& input) {
  const auto& [x, delta] = input;
  if (!delta.defined()) return x;
  check(x.shape() == delta.shape(), "add: x is ", x.shape(), ", but delta is ", delta.shape());
  check_contiguous("add", {{"x", x}, {"delta", delta}});
  check_float("add", {{"x", x}, {"delta", delta}});
  Tensor y = empty_like(x);
  on(x.device(), "add", [&](auto backend, Stream stream) {
    kernels::add(backend, {x.data(), delta.data(), y.data(), x.numel(), x.dtype(), delta.dtype(), y.dtype()}, stream);
  });
  return record("add", y, {x, delta}, [dtype = delta.dtype()](const Tensor& dy, const Needs& needs) -> Gradients {
    return {dy, needs[1] ? cast(dy, dtype) : Tensor()};
  });
}

Tensor view(const Tensor& x, Shape shape) {
  Tensor y = x.viewed(std::move(shape));
  return record("view", y, {x},
                [from = x.shape()](const Tensor& dy, const Needs&) -> Gradients { return {dy.viewed(from)}; });
}

}  // namespace nanovlm
