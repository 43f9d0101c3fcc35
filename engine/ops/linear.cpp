#include <algorithm>
#include <memory>
#include <utility>

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

// The weights one below the other, rounded to dtype. One alone that has it already is itself.
//
// They are made anew where they are used, forward and, on hosts, backward: reading them costs far less than the
// product, and keeping a copy of every weight would cost a third of what the optimizer needs.
Tensor stacked(const std::vector<Tensor>& weights, int64_t N, DType dtype) {
  if (weights.size() == 1) return cast(weights[0].detach(), dtype);
  const Device& device = weights[0].device();
  const Tensor all = empty({N, weights[0].size(1)}, dtype, device);
  int64_t row = 0;
  for (const Tensor& weight : weights) {
    const Tensor to = all.slice(0, row, row + weight.size(0));
    on(device, "cast", [&](auto backend, Stream stream) {
      kernels::cast(backend, {weight.data(), to.data(), weight.numel(), weight.dtype(), dtype}, stream);
    });
    row += weight.size(0);
  }
  return all;
}

// A recipe that is used twice in a row, by the gradient of what follows and by its own: made once.
Tensor::Recipe twice(Tensor::Recipe recipe) {
  return [recipe = std::move(recipe), made = std::make_shared<Tensor>()] {
    if (made->defined()) return std::exchange(*made, {});
    return *made = recipe();
  };
}

int64_t rows_of(const char* name, const Tensor& x, const std::vector<Tensor>& weights, DType dtype) {
  int64_t N = 0;
  for (const Tensor& weight : weights) {
    check(x.rank() == 2 && weight.rank() == 2 && x.size(1) == weight.size(1), name, ": x is ", x.shape(),
          ", but weight is ", weight.shape());
    check(weight.dtype() == DType::f32 || (weight.dtype() == dtype && !weight.requires_grad()), name, ": weight is ",
          weight.dtype(), ", but must be f32, or already ", dtype, " where it is not trained");
    N += weight.size(0);
  }
  return N;
}

// y = x [weights]^T + bias, where the weights stand one below the other: y has their columns side by side.
Tensor product(const char* name, const Tensor& x, const std::vector<Tensor>& weights, const Tensor& bias, DType dtype,
               DType out) {
  const int64_t N = rows_of(name, x, weights, dtype), R = x.size(0), K = x.size(1);
  const Tensor rounded = cast(x.detach(), dtype);
  Tensor kept;
  const auto forward = [=](const Tensor& rows, Tensor* rounded_weight) {
    Tensor y = empty({R, N}, out, rows.device());  // before what goes again, which would leave a hole before it
    const Tensor rounded_bias = bias.defined() ? cast(bias.detach(), out) : Tensor();
    const Tensor weight = stacked(weights, N, dtype);
    matmul(rows.device(),
           {rows.data(), weight.data(), y.data(), rounded_bias.data(), R, N, K, false, true, false, dtype, out});
    if (rounded_weight) *rounded_weight = weight;
    return y;
  };
  // A GPU's memory holds the weights beside the activations of a batch, and a launch for each costs it more.
  Tensor y = forward(rounded, x.device().is_host() ? nullptr : &kept);

  const Tensor::Recipe saved = x.dtype() == dtype ? x.recipe() : rounded.recipe();
  // Of fp32 activations the widest are most of a step's memory; what reads them may make them again.
  if (x.device().is_host() && dtype == DType::f32 && N > 2 * K)
    y.set_recipe(twice([=] { return forward(saved(), nullptr); }));
  const DType x_dtype = x.dtype();
  std::vector<Tensor> inputs = {x, bias};
  inputs.insert(inputs.end(), weights.begin(), weights.end());
  Node::record(name, {&y}, inputs, [=](const Gradients& dys, const Needs& needs) -> Gradients {
    const Tensor dy = cast(dys[0], dtype);
    Tensor dx, dbias;
    if (needs[0]) {
      dx = empty({R, K}, dtype == DType::f32 ? DType::f32 : x_dtype, dy.device());
      const Tensor weight = kept.defined() ? kept : stacked(weights, N, dtype);
      matmul(dy.device(),
             {dy.data(), weight.data(), dx.data(), nullptr, R, K, N, false, false, false, dtype, dx.dtype()});
      dx = cast(dx, x_dtype);
    }
    const MemoryScope scope(dy.device(), MemoryClass::gradient);
    if (needs[1]) {
      dbias = zeros({N}, DType::f32, dy.device());
      on(dy.device(), "column_sum", [&](auto backend, Stream stream) {
        kernels::column_sum(backend, {dy.data(), dbias.f32(), R, N, dtype}, stream);
      });
    }
    Gradients gradients = {dx, dbias};
    gradients.resize(2 + weights.size());
    if (std::find(needs.begin() + 2, needs.end(), true) == needs.end()) return gradients;
    Tensor dweight = weights.size() == 1 ? gradient_so_far(weights[0]) : Tensor();
    const bool add = dweight.defined();
    if (!add) dweight = empty({N, K}, DType::f32, dy.device());
    matmul(dy.device(),
           {dy.data(), saved().data(), dweight.data(), nullptr, N, K, R, true, false, add, dtype, DType::f32});
    int64_t row = 0;
    for (size_t i = 0; i < weights.size(); row += weights[i++].size(0))
      if (needs[2 + i]) gradients[2 + i] = dweight.slice(0, row, row + weights[i].size(0));
    return gradients;
  });
  return y;
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, DType dtype) {
  return linear(x, weight, bias, dtype, dtype);
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, DType dtype, DType out) {
  check(!bias.defined() || bias.shape() == Shape{weight.size(0)}, "linear: bias is ", bias.shape(), ", but weight is ",
        weight.shape());
  return product("linear", x, {weight}, bias, dtype, out);
}

Tensor linear_joined(const Tensor& x, const std::vector<Tensor>& weights, DType dtype) {
  return product("linear_joined", x, weights, {}, dtype, dtype);
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
