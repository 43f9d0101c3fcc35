// The layers of both transformers. A layer owns its parameters and lists them by the names they have in a checkpoint;
// loading, saving, the optimizer's groups and the count all walk those lists.
#pragma once
#include <algorithm>
#include <array>
#include <functional>
#include <string>
#include <vector>

#include "engine/ops.h"

namespace nanovlm {

// How a forward pass runs: the dtype of its products, and who wants to see the activations in between.
struct Forward {
  DType dtype = DType::f32;
  std::function<void(const std::string& name, const Tensor& x)> trace;

  void show(const std::string& name, const Tensor& x) const {
    if (trace) trace(name, x);
  }
  void show(const std::string& name, const Residual& x) const {
    if (trace) trace(name, add(x));  // the sum is made only for whoever looks
  }
};

// A fresh parameter: f32, counted as such, and asking for its gradient. Its numbers are undefined.
inline Tensor parameter(Shape shape, const Device& device) {
  const MemoryScope scope(device, MemoryClass::parameter);
  return empty(std::move(shape), DType::f32, device).set_requires_grad();
}

struct Linear {
  Tensor weight, bias;  // [N, K]; [N] or undefined

  Tensor operator()(const Tensor& x, const Forward& run) const { return linear(x, weight, bias, run.dtype); }

  template <class V>
  void parameters(V&& v) {
    v("weight", weight);
    if (bias.defined()) v("bias", bias);
  }
};

// Layers without bias that read the same rows, as one product: their columns side by side. It copies their weights,
// which pays where there are many rows.
template <class... Layers>
Tensor joined(const Tensor& x, const Forward& run, const Layers&... layers) {
  return linear_joined(x, {layers.weight...}, run.dtype);
}

// The same in a tensor for each.
template <class... Layers>
std::array<Tensor, sizeof...(Layers)> each_of(const Tensor& x, const Forward& run, const Layers&... layers) {
  const std::vector<Tensor> y = linear_each(x, {layers.weight...}, run.dtype);
  std::array<Tensor, sizeof...(Layers)> results;
  std::copy(y.begin(), y.end(), results.begin());
  return results;
}

struct RmsNorm {
  Tensor weight;  // [C]
  float eps = 1e-5f;

  Normed operator()(const Residual& x, const Forward& run) const { return rms_norm(x, weight, eps, run.dtype); }

  template <class V>
  void parameters(V&& v) {
    v("weight", weight);
  }
};

struct LayerNorm {
  Tensor weight, bias;  // [C]
  float eps = 1e-6f;

  Normed operator()(const Residual& x, const Forward& run) const { return layer_norm(x, weight, bias, eps, run.dtype); }

  template <class V>
  void parameters(V&& v) {
    v("weight", weight), v("bias", bias);
  }
};

// Calls f(name, tensor) for every parameter below `module`, names joined by dots.
template <class Module, class F>
void walk(Module& module, const std::string& prefix, const F& f) {
  module.parameters([&](const std::string& name, auto& child) {
    const std::string path = prefix.empty() ? name : prefix + "." + name;
    if constexpr (std::is_same_v<std::decay_t<decltype(child)>, Tensor>)
      f(path, child);
    else
      walk(child, path, f);
  });
}

}  // namespace nanovlm
