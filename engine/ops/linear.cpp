#include <algorithm>
#include <memory>
#include <string_view>
#include <utility>

#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm/gemm.h"
#include "kernels/matmul/matmul_gelu.h"

#include "engine/ops.h"
#include "engine/ops/checks.h"

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
  check_float(name, {{"x", x}});
  check_float_result(name, x, dtype);
  int64_t N = 0;
  for (const Tensor& weight : weights) {
    check(x.rank() == 2 && weight.rank() == 2 && x.size(1) == weight.size(1), name, ": x is ", x.shape(),
          ", but weight is ", weight.shape());
    check(weight.dtype() == DType::f32 || (weight.dtype() == dtype && !weight.requires_grad()), name, ": weight is ",
          weight.dtype(), ", but must be f32, or already ", dtype, " where it is not trained");
    check_contiguous(name, {{"x", x}, {"weight", weight}});
    N += weight.size(0);
  }
  return N;
}

void check_bias(const char* name, const Tensor& bias, const Tensor& weight) {
  check(!bias.defined() || bias.shape() == Shape{weight.size(0)}, name, ": bias is ", bias.shape(), ", but weight is ",
        weight.shape());
  check_contiguous(name, {{"bias", bias}});
}

Tensor rounded_bias(const Tensor& bias, DType dtype) { return bias.defined() ? cast(bias.detach(), dtype) : Tensor(); }

// The gradients of y = x weight^T + bias. What is remade is made after what stays, or it would leave a hole before it.
//
// dx = dy weight  [R, K]
Tensor input_gradient(const Tensor& dy, int64_t K, const Tensor::Recipe& weight, DType x_dtype) {
  const int64_t R = dy.size(0), N = dy.size(1);
  const Tensor dx = empty({R, K}, dy.dtype() == DType::f32 ? DType::f32 : x_dtype, dy.device());
  matmul(dy.device(),
         {dy.data(), weight().data(), dx.data(), nullptr, R, K, N, false, false, false, dy.dtype(), dx.dtype()});
  return cast(dx, x_dtype);
}

// dy^T x, added to what there is  [N, K]
Tensor weight_gradient(const Tensor& dy, int64_t K, const Tensor::Recipe& x, const Tensor& so_far) {
  const MemoryScope scope(dy.device(), MemoryClass::gradient);
  const int64_t R = dy.size(0), N = dy.size(1);
  const bool add = so_far.defined();
  const Tensor dweight = add ? so_far : empty({N, K}, DType::f32, dy.device());
  matmul(dy.device(),
         {dy.data(), x().data(), dweight.data(), nullptr, N, K, R, true, false, add, dy.dtype(), DType::f32});
  return dweight;
}

// The sums of dy's columns  [N]
Tensor bias_gradient(const Tensor& dy) {
  const MemoryScope scope(dy.device(), MemoryClass::gradient);
  const Tensor dbias = zeros({dy.size(1)}, DType::f32, dy.device());
  on(dy.device(), "column_sum", [&](auto backend, Stream stream) {
    kernels::column_sum(backend, {dy.data(), dbias.f32(), dy.size(0), dy.size(1), dy.dtype()}, stream);
  });
  return dbias;
}

// y = x [weights]^T + bias, where the weights stand one below the other: y has their columns side by side.
Tensor product(const char* name, const Tensor& x, const std::vector<Tensor>& weights, const Tensor& bias, DType dtype,
               DType out) {
  const int64_t N = rows_of(name, x, weights, dtype), R = x.size(0), K = x.size(1);
  check(out == dtype || out == DType::f32, name, ": the result is ", out, ", but a product of ", dtype,
        " is stored as that or as f32");
  const Tensor rounded = cast(x.detach(), dtype);
  Tensor kept;
  const auto forward = [=](const Tensor& rows, Tensor* rounded_weight) {
    Tensor y = empty({R, N}, out, rows.device());  // before what goes again, which would leave a hole before it
    const Tensor added = rounded_bias(bias, out);
    const Tensor weight = stacked(weights, N, dtype);
    matmul(rows.device(),
           {rows.data(), weight.data(), y.data(), added.data(), R, N, K, false, true, false, dtype, out});
    if (rounded_weight) *rounded_weight = weight;
    return y;
  };
  // A GPU's memory holds the weights beside the activations of a batch, and a launch for each costs it more.
  Tensor y = forward(rounded, x.device().is_host() ? nullptr : &kept);

  const Tensor::Recipe saved = x.dtype() == dtype ? x.recipe() : rounded.recipe();
  // Of fp32 activations the widest (fc1, gate | up) are most of a step's memory; what reads them may make them again.
  // q | k | v of the vision transformer is as wide, but attention keeps it.
  if (x.device().is_host() && dtype == DType::f32 && N > 2 * K)
    y.set_recipe(twice([=] { return forward(saved(), nullptr); }));
  const DType x_dtype = x.dtype();
  std::vector<Tensor> inputs = {x, bias};
  inputs.insert(inputs.end(), weights.begin(), weights.end());
  Node::record(name, {&y}, inputs, [=](const Gradients& dys, const Needs& needs) -> Gradients {
    const Tensor dy = cast(dys[0], dtype);
    Gradients gradients(2 + weights.size());
    const auto weight = [&] { return kept.defined() ? kept : stacked(weights, N, dtype); };
    if (needs[0]) gradients[0] = input_gradient(dy, K, weight, x_dtype);
    if (needs[1]) gradients[1] = bias_gradient(dy);
    if (std::find(needs.begin() + 2, needs.end(), true) == needs.end()) return gradients;
    const Tensor so_far = weights.size() == 1 ? gradient_so_far(weights[0]) : Tensor();
    const Tensor dweight = weight_gradient(dy, K, saved, so_far);
    int64_t row = 0;
    for (size_t i = 0; i < weights.size(); row += weights[i++].size(0))
      if (needs[2 + i]) gradients[2 + i] = dweight.slice(0, row, row + weights[i].size(0));
    return gradients;
  });
  return y;
}

// linear(gelu(z)), z = linear(x), with GELU and its gradient in the products beside them.
Tensor mlp_by_epilogues(const Tensor& x, const Tensor& weight1, const Tensor& bias1, const Tensor& weight2,
                        const Tensor& bias2, DType dtype) {
  const Device& device = x.device();
  const int64_t N = rows_of("mlp", x, {weight1}, dtype), R = x.size(0), K = x.size(1);
  const Tensor rounded = cast(x.detach(), dtype), h = empty({R, N}, dtype, device);
  const Tensor z = device.context().record_gradients ? empty_like(h) : Tensor();
  const Tensor y = empty({R, rows_of("mlp", h, {weight2}, dtype)}, dtype, device);
  const Tensor kept1 = cast(weight1.detach(), dtype), kept2 = cast(weight2.detach(), dtype);
  const Tensor added1 = rounded_bias(bias1, dtype), added2 = rounded_bias(bias2, dtype);
  const int64_t out = y.size(1);
  on(device, {"matmul_gelu", {R, N, K}}, [&](auto backend, Stream stream) {
    kernels::matmul_gelu(
        backend,
        {{rounded.data(), kept1.data(), h.data(), added1.data(), R, N, K, false, true, false, dtype, dtype}, z.data()},
        stream);
  });
  matmul(device, {h.data(), kept2.data(), y.data(), added2.data(), R, out, N, false, true, false, dtype, dtype});

  const Tensor::Recipe saved = x.dtype() == dtype ? x.recipe() : rounded.recipe();
  const DType x_dtype = x.dtype();
  return record("mlp", y, {x, weight1, bias1, weight2, bias2}, [=](const Tensor& dy, const Needs& needs) -> Gradients {
    Gradients gradients(5);
    const auto h_again = [&] { return gelu(z); };
    if (needs[3]) gradients[3] = weight_gradient(dy, N, h_again, gradient_so_far(weight2));
    if (needs[4]) gradients[4] = bias_gradient(dy);
    if (!needs[0] && !needs[1] && !needs[2]) return gradients;
    const Tensor dz = empty_like(z);
    if (needs[2]) {
      const MemoryScope scope(dy.device(), MemoryClass::gradient);
      gradients[2] = zeros({N}, DType::f32, dy.device());
    }
    on(dy.device(), {"matmul_gelu_backward", {R, N, out}}, [&](auto backend, Stream stream) {
      kernels::matmul_gelu_backward(
          backend,
          {{dy.data(), kept2.data(), dz.data(), nullptr, R, N, out, false, false, false, dtype, dtype},
           z.data(),
           needs[2] ? gradients[2].f32() : nullptr},
          stream);
    });
    if (needs[1]) gradients[1] = weight_gradient(dz, K, saved, gradient_so_far(weight1));
    const auto weight = [&] { return kept1; };
    if (needs[0]) gradients[0] = input_gradient(dz, K, weight, x_dtype);
    return gradients;
  });
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, DType dtype) {
  return linear(x, weight, bias, dtype, dtype);
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, DType dtype, DType out) {
  check_bias("linear", bias, weight);
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
  const int64_t columns = rows_of("linear_each", x, weights, dtype), R = x.size(0), K = x.size(1);
  const Tensor rounded = cast(x, dtype);
  std::vector<Tensor> kept;  // weights in dtype, until the products are made
  std::vector<kernels::Matmul> products;
  for (const Tensor& weight : weights) {
    const int64_t N = weight.size(0);
    results.push_back(empty({R, N}, dtype, x.device()));
    kept.push_back(cast(weight, dtype));
    products.push_back({rounded.data(), kept.back().data(), results.back().data(), nullptr, R, N, K, false, true, false,
                        dtype, dtype});
  }
  on(x.device(), {"matmul", {R, columns, K}},
     [&](auto backend, Stream stream) { kernels::matmul_each(backend, products, stream); });
  return results;
}

Tensor mlp(const Tensor& x, const Tensor& weight1, const Tensor& bias1, const Tensor& weight2, const Tensor& bias2,
           DType dtype) {
  const char* chosen = x.device().context().kernels.of("mlp");
  if (!chosen || std::string_view(chosen) == "separate")
    return linear(gelu(linear(x, weight1, bias1, dtype)), weight2, bias2, dtype);
  check_bias("mlp", bias1, weight1);
  check_bias("mlp", bias2, weight2);
  return mlp_by_epilogues(x, weight1, bias1, weight2, bias2, dtype);
}

}  // namespace nanovlm
