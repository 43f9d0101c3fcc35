// bench/swiglu [--dir fwd,bwd] ...
//
// SwiGLU's gate in the language model's shape: 128 rows of 1536 a sample. Backward makes y again for the down
// projection's weight gradient. Least bytes: gate, up, y once; backward gate, up, dy, dgate, dup, y. naive, on the
// cpu: a pass for each step of the formula.
#include "kernels/swiglu/swiglu.h"

#include <cmath>
#include <memory>

#include "bench/common/kernel_bench.h"
#include "bench/common/passes.h"
#include "tests/support/reference.h"

using namespace nanovlm;
using namespace nanovlm::bench;
namespace reference = nanovlm::testing::reference;

namespace {

struct Operands {
  Tensor gate, up, y, dy, dgate, dup;

  Operands(int64_t n, DType dtype, const Device& device, uint64_t seed) {
    Random random(seed);
    gate = normal({n}, dtype, random, device), up = normal({n}, dtype, random, device);
    dy = normal({n}, dtype, random, device);
    y = empty_like(gate), dgate = empty_like(gate), dup = empty_like(gate);
  }
  void forward() const {
    on(gate.device(), "swiglu", [&](auto backend, Stream stream) {
      kernels::swiglu(backend, {gate.data(), up.data(), y.data(), 1, gate.numel(), gate.numel(), gate.dtype()}, stream);
    });
  }
  void backward() const {
    on(gate.device(), "swiglu_backward", [&](auto backend, Stream stream) {
      kernels::swiglu_backward(backend,
                               {gate.data(), up.data(), dy.data(), dgate.data(), dup.data(), y.data(), 1, gate.numel(),
                                gate.numel(), gate.dtype()},
                               stream);
    });
  }
  // dgate holds what one pass hands to the next.
  void forward_in_passes() const {
    pass(gate, gate, dgate, [](float g, float) { return 1 / (1 + std::exp(-g)); });
    pass(dgate, gate, dgate, product);
    pass(dgate, up, y, product);
  }
  void backward_in_passes() const {
    pass(gate, gate, dup, [](float g, float) { return 1 / (1 + std::exp(-g)); });
    pass(dup, gate, y, product);
    pass(dup, gate, dgate, [](float s, float g) { return s * (1 + g * (1 - s)); });
    pass(dgate, up, dgate, product);
    pass(dgate, dy, dgate, product);
    pass(y, dy, dup, product);
    pass(y, up, y, product);
  }

  Outcome y_outcome() const {
    const Values g = values_of(gate), u = values_of(up);
    return {"y", values_of(y), reference::swiglu<double>(g, u, y.dtype()), reference::swiglu<float>(g, u, y.dtype())};
  }
  std::vector<Outcome> backward_outcomes() const {
    const Values g = values_of(gate), u = values_of(up), d = values_of(dy);
    auto exact = reference::swiglu_backward<double>(g, u, d, y.dtype());
    auto rounded = reference::swiglu_backward<float>(g, u, d, y.dtype());
    return {{"dgate", values_of(dgate), std::move(exact.dgate), std::move(rounded.dgate)},
            {"dup", values_of(dup), std::move(exact.dup), std::move(rounded.dup)},
            y_outcome()};
  }
};

Instance instance_of(bool forward, int64_t n, DType dtype, const Device& device, uint64_t seed) {
  const auto x = std::make_shared<Operands>(n, dtype, device, seed);
  Instance instance = forward
                          ? Instance{[x] { x->forward(); }, [x] { return std::vector<Outcome>{x->y_outcome()}; }, {}}
                          : Instance{[x] { x->backward(); }, [x] { return x->backward_outcomes(); }, {}};
  if (device.kind() == DeviceKind::cpu)
    instance.baselines.push_back(
        {"naive", [x, forward] { forward ? x->forward_in_passes() : x->backward_in_passes(); }});
  return instance;
}

}  // namespace

int main(int argc, char** argv) {
  KernelBench bench("swiglu", {"fwd", "bwd"});
  return bench.run(argc, argv, [](const Request& request) {
    std::vector<Case> cases;
    const int64_t B = request.batch_or(256, 12, 1), n = B * 128 * 1536;
    for (const DType dtype : request.dtypes)
      for (const bool forward : {true, false}) {
        Case c{"swiglu", forward ? "fwd" : "bwd",
               dtype,    {{"rows", B * 128}, {"columns", 1536}},
               0,        static_cast<double>((forward ? 3 : 6) * n * size_of(dtype))};
        c.full = 256.0 / static_cast<double>(B), c.sources = {"kernels/swiglu/swiglu.cu"};
        c.make = [=, device = request.device](uint64_t seed) { return instance_of(forward, n, dtype, device, seed); };
        cases.push_back(std::move(c));
      }
    return cases;
  });
}
