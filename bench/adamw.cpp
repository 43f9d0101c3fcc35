// bench/adamw [--parameters N] [--tensors N,...] [--dir step,norm] ...
//
// step: AdamW over all parameters, one large tensor or as many as a model has, with the clipping factor and, under
// bf16, the rounded copy: 28 or 30 bytes a parameter at least. norm: what clipping needs, 4 bytes. naive: a launch a
// tensor, a thread a parameter.
#include "kernels/adamw/coefficients.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <memory>

#include "bench/common/kernel_bench.h"
#include "kernels/naive/naive.h"
#include "tests/support/reference.h"

using namespace nanovlm;
using namespace nanovlm::bench;
namespace reference = nanovlm::testing::reference;

namespace {

constexpr reference::AdamWSettings kSettings{1e-3, 0.9, 0.999, 1e-8, 0.01};
constexpr int64_t kStep = 7;

// [1 or more]: like a model's, every second one is a norm's weight or a bias, and the rest are matrices.
std::vector<int64_t> sizes_of(int64_t parameters, int64_t tensors) {
  constexpr int64_t kWidth = 768;
  const int64_t vectors = tensors / 2, matrices = tensors - vectors;
  const int64_t width = std::min(kWidth, parameters / tensors), rest = parameters - vectors * width;
  std::vector<int64_t> sizes;
  for (int64_t i = 0; i < matrices; ++i) {
    sizes.push_back(rest * (i + 1) / matrices - rest * i / matrices);
    if (i < vectors) sizes.push_back(width);
  }
  return sizes;
}

Values all_values(const std::vector<Tensor>& tensors) {
  Values all;
  for (const Tensor& x : tensors) {
    const Values values = values_of(x);
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

struct Operands {
  Device device;
  std::vector<Tensor> p, m, v, g, copy;
  Tensor scale, coefficients;
  Values p_before, m_before, v_before;  // the first run's, which is what is checked

  Operands(const std::vector<int64_t>& sizes, bool rounded_copy, const Device& device, uint64_t seed) : device(device) {
    Random random(seed);
    for (const int64_t n : sizes) {
      p.push_back(normal({n}, DType::f32, random, device));
      m.push_back(normal({n}, DType::f32, random, device, 0.1f));
      v.push_back(from_host(squares(normal({n}, DType::f32, random, device, 0.1f)), {n}, device));
      g.push_back(normal({n}, DType::f32, random, device));
      copy.push_back(rounded_copy ? empty({n}, DType::bf16, device) : Tensor());
    }
    scale = from_host(std::vector<float>{0.5f}, {1}, device);
    const kernels::AdamWCoefficients values = kernels::adamw_coefficients(
        {kStep, kSettings.lr, kSettings.beta1, kSettings.beta2, kSettings.eps, kSettings.weight_decay});
    coefficients = empty({sizeof values / sizeof(float)}, DType::f32, device);
    copy_from_host(coefficients, &values, sizeof values);
    p_before = all_values(p), m_before = all_values(m), v_before = all_values(v);
  }
  static std::vector<float> squares(const Tensor& x) {
    std::vector<float> values = to_host(x);
    for (float& value : values) value *= value;
    return values;
  }
  void step(bool naive) const {
    const auto* numbers = static_cast<const kernels::AdamWCoefficients*>(coefficients.data());
    std::vector<kernels::AdamWTensor> tensors;
    for (size_t i = 0; i < p.size(); ++i) {
      auto* const rounded = copy[i].defined() ? static_cast<bf16*>(copy[i].data()) : nullptr;
      tensors.push_back({p[i].f32(), m[i].f32(), v[i].f32(), g[i].f32(), rounded, numbers, p[i].numel()});
    }
    on(device, "adamw", [&](auto backend, Stream stream) {
      const auto count = static_cast<int64_t>(tensors.size());
      const kernels::AdamW a{tensors.data(), count, scale.f32(), scale.f32()};
      naive ? kernels::naive_adamw(backend, a, stream) : kernels::adamw(backend, a, stream);
    });
  }
  std::vector<Outcome> outcomes() const {
    const Values slopes = all_values(g);
    Values p_exact = p_before, m_exact = m_before, v_exact = v_before;
    Values p_rounded = p_before, m_rounded = m_before, v_rounded = v_before;
    reference::adamw<double>(p_exact, m_exact, v_exact, slopes, 0.5, kStep, kSettings);
    reference::adamw<float>(p_rounded, m_rounded, v_rounded, slopes, 0.5, kStep, kSettings);
    return {{"p", all_values(p), std::move(p_exact), std::move(p_rounded)},
            {"m", all_values(m), std::move(m_exact), std::move(m_rounded)},
            {"v", all_values(v), std::move(v_exact), std::move(v_rounded)}};
  }
};

Instance step_instance(const std::vector<int64_t>& sizes, bool rounded_copy, bool with_naive, const Device& device,
                       uint64_t seed) {
  const auto x = std::make_shared<Operands>(sizes, rounded_copy, device, seed);
  Instance instance{[x] { x->step(false); }, [x] { return x->outcomes(); }, {}};
  if (with_naive) {
    const auto other = std::make_shared<Operands>(sizes, rounded_copy, device, seed);  // starts where the first does
    instance.baselines.push_back({"naive",
                                  [other] { other->step(true); },
                                  false,
                                  [other] { return other->outcomes(); },
                                  {"kernels/naive/naive.cu"}});
  }
  return instance;
}

Instance norm_instance(const std::vector<int64_t>& sizes, const Device& device, uint64_t seed) {
  Random random(seed);
  std::vector<Tensor> gradients;
  for (const int64_t n : sizes) gradients.push_back(normal({n}, DType::f32, random, device));
  const Tensor norm = empty({1}, DType::f32, device), scale = empty({1}, DType::f32, device);
  const auto run = [=] {
    std::vector<kernels::Gradient> list;
    for (const Tensor& x : gradients) list.push_back({x.f32(), x.numel()});
    on(device, "clip_grad_norm", [&](auto backend, Stream stream) {
      const auto count = static_cast<int64_t>(list.size());
      kernels::clip_scale(backend, {list.data(), count, norm.f32(), scale.f32(), 1}, stream);
    });
  };
  const auto outcomes = [=]() -> std::vector<Outcome> {
    double squares = 0;
    for (const double value : all_values(gradients)) squares += value * value;
    const double exact = std::sqrt(squares), factor = 1 / (exact + 1e-6);
    return {{"norm", values_of(norm), {exact}, {exact}}, {"scale", values_of(scale), {factor}, {factor}}};
  };
  return {run, outcomes, {}};
}

}  // namespace

int main(int argc, char** argv) {
  int64_t parameters = 0;
  std::vector<int64_t> tensors;
  KernelBench bench("adamw", {"step", "norm"});
  bench.app()
      .add_option("--parameters", parameters, "how many; default what suits the device")
      ->check(CLI::PositiveNumber);
  bench.app()
      .add_option("--tensors", tensors, "among how many tensors; default 1 and what suits the device")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  return bench.run(argc, argv, [&](const Request& request) {
    constexpr int64_t kMillion = 1000 * 1000;
    std::vector<Case> cases;
    const int64_t n = parameters > 0 ? parameters : request.suited(64 * kMillion, 16 * kMillion, 1 << 18);
    // The 222M model has 422 tensors.
    if (tensors.empty()) tensors = {1, request.suited(422, 422, 80)};
    const auto add = [&](int64_t count, const std::string& operation, const std::string& dir, DType dtype,
                         int64_t bytes, auto make) {
      Case c{operation, dir, dtype, {{"parameters", n}, {"tensors", count}}, 0, static_cast<double>(n * bytes)};
      c.full = 222e6 / static_cast<double>(n), c.sources = {"kernels/adamw/adamw.cu"};
      c.make = [=, sizes = sizes_of(n, count), device = request.device](uint64_t seed) {
        return make(sizes, device, seed);
      };
      cases.push_back(std::move(c));
    };
    using Sizes = std::vector<int64_t>;
    const bool naive = request.impls.wanted("naive");
    for (const int64_t count : tensors) {
      for (const DType dtype : request.dtypes) {
        const bool copy = dtype == DType::bf16;
        add(count, "adamw", "step", dtype, copy ? 30 : 28,
            [=](const Sizes& sizes, const Device& device, uint64_t seed) {
              return step_instance(sizes, copy, naive, device, seed);
            });
      }
      add(count, "clip_scale", "norm", DType::f32, 4, norm_instance);
    }
    return cases;
  });
}
