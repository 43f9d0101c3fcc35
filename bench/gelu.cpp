// bench/gelu [--dir fwd,bwd] ...
//
// GELU in the vision transformer's shape: 196 rows of 3072 a sample. Least bytes: x and y once; backward x, dy, dx.
// naive, on the cpu: the tanh first, then what is made of it.
#include "kernels/gelu/gelu.h"

#include <cmath>

#include "bench/common/kernel_bench.h"
#include "bench/common/passes.h"
#include "tests/support/reference.h"

using namespace nanovlm;
using namespace nanovlm::bench;
namespace reference = nanovlm::testing::reference;

namespace {

constexpr float kRoot = 0.7978845608f, kCubic = 0.044715f;  // sqrt(2 / pi)

float tanh_part(float x, float) { return std::tanh(kRoot * (x + kCubic * x * x * x)); }

void forward_in_passes(const Tensor& x, const Tensor& y) {
  pass(x, x, y, tanh_part);
  pass(y, x, y, [](float t, float x) { return 0.5f * x * (1 + t); });
}
void backward_in_passes(const Tensor& x, const Tensor& dy, const Tensor& dx) {
  pass(x, x, dx, tanh_part);
  pass(dx, x, dx,
       [](float t, float x) { return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * kRoot * (1 + 3 * kCubic * x * x); });
  pass(dx, dy, dx, product);
}

Instance instance_of(bool forward, int64_t n, DType dtype, const Device& device, uint64_t seed) {
  Random random(seed);
  const Tensor x = normal({n}, dtype, random, device), dy = normal({n}, dtype, random, device), y = empty_like(x);
  const auto run = [=] {
    on(device, "gelu", [&](auto backend, Stream stream) {
      if (forward)
        kernels::gelu(backend, {x.data(), y.data(), n, dtype}, stream);
      else
        kernels::gelu_backward(backend, {x.data(), dy.data(), y.data(), n, dtype}, stream);
    });
  };
  const auto outcomes = [=]() -> std::vector<Outcome> {
    const Values in = values_of(x), slope = values_of(dy);
    if (forward) return {{"y", values_of(y), reference::gelu<double>(in, dtype), reference::gelu<float>(in, dtype)}};
    return {{"dx", values_of(y), reference::gelu_backward<double>(in, slope, dtype),
             reference::gelu_backward<float>(in, slope, dtype)}};
  };
  Instance instance{run, outcomes, {}};
  if (device.kind() == DeviceKind::cpu)
    instance.baselines.push_back({"naive", [=] { forward ? forward_in_passes(x, y) : backward_in_passes(x, dy, y); }});
  return instance;
}

}  // namespace

int main(int argc, char** argv) {
  KernelBench bench("gelu", {"fwd", "bwd"});
  return bench.run(argc, argv, [](const Request& request) {
    std::vector<Case> cases;
    const int64_t B = request.batch_or(256, 12, 1), n = B * 196 * 3072;
    for (const DType dtype : request.dtypes)
      for (const bool forward : {true, false}) {
        Case c{"gelu", forward ? "fwd" : "bwd",
               dtype,  {{"rows", B * 196}, {"columns", 3072}},
               0,      static_cast<double>((forward ? 2 : 3) * n * size_of(dtype))};
        c.full = 256.0 / static_cast<double>(B), c.sources = {"kernels/gelu/gelu.cu"};
        c.make = [=, device = request.device](uint64_t seed) { return instance_of(forward, n, dtype, device, seed); };
        cases.push_back(std::move(c));
      }
    return cases;
  });
}
