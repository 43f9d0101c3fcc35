#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm/gemm.h"

#include "engine/ops.h"

namespace nanovlm {
namespace {

void matmul(const Device& device, const kernels::Matmul& product) {
  on(device, {"matmul", {product.M, product.N, product.K}}, [&](auto backend, Stream stream) {
    kernels::chosen_matmul(backend, device.context().kernels.of("matmul"), product, stream);
  });
}

}  // namespace

// The rounded weight is made anew where it is used, forward and backward: reading it costs far less than the product,
// and keeping a copy of every weight would cost a third of what the optimizer needs.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, DType dtype) {
  return linear(x, weight, bias, dtype, dtype);
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, DType dtype, DType out) {
  check(x.rank() == 2 && weight.rank() == 2 && x.size(1) == weight.size(1), "linear: x is ", x.shape(),
        ", but weight is ", weight.shape());
  const int64_t R = x.size(0), K = x.size(1), N = weight.size(0);
  check(!bias.defined() || bias.shape() == Shape{N}, "linear: bias is ", bias.shape(), ", but weight is ",
        weight.shape());
  check(weight.dtype() == DType::f32 || (weight.dtype() == dtype && !weight.requires_grad()), "linear: weight is ",
        weight.dtype(), ", but must be f32, or already ", dtype, " where it is not trained");

  const Tensor rounded = cast(x.detach(), dtype);
  const Tensor rounded_bias = bias.defined() ? cast(bias.detach(), out) : Tensor();
  Tensor y = empty({R, N}, out, x.device());
  matmul(x.device(), {rounded.data(), cast(weight.detach(), dtype).data(), y.data(), rounded_bias.data(), R, N, K,
                      false, true, false, dtype, out});

  const Tensor::Recipe saved = x.dtype() == dtype ? x.recipe() : rounded.recipe();
  const DType x_dtype = x.dtype();
  return record("linear", y, {x, weight, bias}, [=](const Tensor& gradient, const Needs& needs) -> Gradients {
    const Tensor dy = cast(gradient, dtype);
    Tensor dx, dweight, dbias;
    if (needs[0]) {
      dx = empty({R, K}, dtype == DType::f32 ? DType::f32 : x_dtype, dy.device());
      matmul(dy.device(), {dy.data(), cast(weight.detach(), dtype).data(), dx.data(), nullptr, R, K, N, false, false,
                           false, dtype, dx.dtype()});
      dx = cast(dx, x_dtype);
    }
    const MemoryScope scope(dy.device(), MemoryClass::gradient);
    if (needs[1]) {
      dweight = gradient_so_far(weight);
      const bool add = dweight.defined();
      if (!add) dweight = empty({N, K}, DType::f32, dy.device());
      matmul(dy.device(),
             {dy.data(), saved().data(), dweight.data(), nullptr, N, K, R, true, false, add, dtype, DType::f32});
    }
    if (needs[2]) {
      dbias = zeros({N}, DType::f32, dy.device());
      on(dy.device(), "column_sum", [&](auto backend, Stream stream) {
        kernels::column_sum(backend, {dy.data(), dbias.f32(), R, N, dtype}, stream);
      });
    }
    return {dx, dweight, dbias};
  });
}

std::vector<Tensor> linear_each(const Tensor& x, const std::vector<Tensor>& weights, DType dtype) {
  std::vector<Tensor> results;
  if (x.device().context().record_gradients) {
    for (const Tensor& weight : weights) results.push_back(linear(x, weight, {}, dtype));
    return results;
  }
  const int64_t R = x.size(0), K = x.size(1);
  const Tensor rounded = cast(x, dtype);
  std::vector<Tensor> kept;  // weights in dtype, until the products are made
  std::vector<kernels::Matmul> products;
  int64_t columns = 0;
  for (const Tensor& weight : weights) {
    check(weight.rank() == 2 && weight.size(1) == K, "linear_each: x is ", x.shape(), ", but weight is ",
          weight.shape());
    const int64_t N = weight.size(0);
    results.push_back(empty({R, N}, dtype, x.device()));
    kept.push_back(cast(weight, dtype));
    products.push_back({rounded.data(), kept.back().data(), results.back().data(), nullptr, R, N, K, false, true, false,
                        dtype, dtype});
    columns += N;
  }
  on(x.device(), {"matmul", {R, columns, K}},
     [&](auto backend, Stream stream) { kernels::matmul_each(backend, products, stream); });
  return results;
}

}  // namespace nanovlm
