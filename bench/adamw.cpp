// bench/adamw [--parameters N] [--dir step,norm] ...
//
// step: AdamW over one array of parameters, with the clipping factor and, under bf16, the rounded copy: 28 or 30 bytes
// a parameter at least. norm: the sum of squares that clipping needs, 4 bytes.
#include "kernels/adamw/coefficients.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "bench/common/kernel_bench.h"
#include "tests/support/reference.h"

using namespace nanovlm;
using namespace nanovlm::bench;
namespace reference = nanovlm::testing::reference;

namespace {

constexpr reference::AdamWSettings kSettings{1e-3, 0.9, 0.999, 1e-8, 0.01};
constexpr int64_t kStep = 7;

struct Operands {
  int64_t n;
  Tensor p, m, v, g, copy, scale, coefficients;
  Values p_before, m_before, v_before;  // the first run's, which is what is checked

  Operands(int64_t n, bool rounded_copy, const Device& device, uint64_t seed) : n(n) {
    Random random(seed);
    p = normal({n}, DType::f32, random, device), m = normal({n}, DType::f32, random, device, 0.1f);
    v = from_host(squares(normal({n}, DType::f32, random, Device::open("cpu"), 0.1f)), {n}, device);
    g = normal({n}, DType::f32, random, device), scale = from_host(std::vector<float>{0.5f}, {1}, device);
    const kernels::AdamWCoefficients values = kernels::adamw_coefficients(
        {kStep, kSettings.lr, kSettings.beta1, kSettings.beta2, kSettings.eps, kSettings.weight_decay});
    coefficients = empty({sizeof values / sizeof(float)}, DType::f32, device);
    copy_from_host(coefficients, &values, sizeof values);
    if (rounded_copy) copy = empty({n}, DType::bf16, device);
    p_before = values_of(p), m_before = values_of(m), v_before = values_of(v);
  }
  static std::vector<float> squares(const Tensor& x) {
    std::vector<float> values = to_host(x);
    for (float& value : values) value *= value;
    return values;
  }
  void step() const {
    on(p.device(), "adamw", [&](auto backend, Stream stream) {
      kernels::adamw(backend,
                     {p.f32(), m.f32(), v.f32(), g.f32(), static_cast<bf16*>(copy.data()), scale.f32(), scale.f32(),
                      static_cast<const kernels::AdamWCoefficients*>(coefficients.data()), n},
                     stream);
    });
  }
  std::vector<Outcome> outcomes() const {
    const Values slopes = values_of(g);
    Values p_exact = p_before, m_exact = m_before, v_exact = v_before;
    Values p_rounded = p_before, m_rounded = m_before, v_rounded = v_before;
    reference::adamw<double>(p_exact, m_exact, v_exact, slopes, 0.5, kStep, kSettings);
    reference::adamw<float>(p_rounded, m_rounded, v_rounded, slopes, 0.5, kStep, kSettings);
    return {{"p", values_of(p), std::move(p_exact), std::move(p_rounded)},
            {"m", values_of(m), std::move(m_exact), std::move(m_rounded)},
            {"v", values_of(v), std::move(v_exact), std::move(v_rounded)}};
  }
};

Instance step_instance(int64_t n, bool rounded_copy, const Device& device, uint64_t seed) {
  const auto x = std::make_shared<Operands>(n, rounded_copy, device, seed);
  return {[x] { x->step(); }, [x] { return x->outcomes(); }, {}};
}

Instance norm_instance(int64_t n, const Device& device, uint64_t seed) {
  Random random(seed);
  const Tensor x = normal({n}, DType::f32, random, device);
  const Tensor sum = empty({2}, DType::f32, device);  // two floats hold the one fp64
  const auto run = [=] {
    on(device, "sum_of_squares", [&](auto backend, Stream stream) {
      kernels::sum_of_squares(backend, {x.f32(), static_cast<double*>(sum.data()), n, false}, stream);
    });
  };
  const auto outcomes = [=]() -> std::vector<Outcome> {
    double exact = 0, got = 0;
    for (const double value : values_of(x)) exact += value * value;
    copy_to_host(sum, &got, sizeof got);
    return {{"sum", {got}, {exact}, {exact}}};
  };
  return {run, outcomes, {}};
}

}  // namespace

int main(int argc, char** argv) {
  int64_t parameters = 0;
  KernelBench bench("adamw", {"step", "norm"});
  bench.app().add_option("--parameters", parameters, "how many; default what suits the device");
  return bench.run(argc, argv, [&](const Request& request) {
    constexpr int64_t kMillion = 1000 * 1000;
    std::vector<Case> cases;
    const int64_t n = parameters > 0 ? parameters : request.suited(64 * kMillion, 16 * kMillion, 1 << 18);
    const auto add = [&](const std::string& operation, const std::string& dir, DType dtype, int64_t bytes, auto make) {
      Case c{operation, dir, dtype, {{"parameters", n}}, 0, static_cast<double>(n * bytes)};
      c.full = 222e6 / static_cast<double>(n), c.sources = {"kernels/adamw/adamw.cu"};
      c.make = [=, device = request.device](uint64_t seed) { return make(device, seed); };
      cases.push_back(std::move(c));
    };
    for (const DType dtype : request.dtypes) {
      const bool copy = dtype == DType::bf16;
      add("adamw", "step", dtype, copy ? 30 : 28,
          [=](const Device& device, uint64_t seed) { return step_instance(n, copy, device, seed); });
    }
    add("sum_of_squares", "norm", DType::f32, 4,
        [=](const Device& device, uint64_t seed) { return norm_instance(n, device, seed); });
    return cases;
  });
}
