// bench/gelu [--dir fwd,bwd] ...
//
// GELU in the vision transformer's shape: 196 rows of 3072 a sample. Least bytes: x and y once; backward x, dy, dx.
#include "kernels/gelu/gelu.h"

#include <memory>

#include "bench/common/kernel_bench.h"
#include "tests/support/reference.h"

using namespace nanovlm;
using namespace nanovlm::bench;
namespace reference = nanovlm::testing::reference;

namespace {

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
  return {run, outcomes, {}};
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
