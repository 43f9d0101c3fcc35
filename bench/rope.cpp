// bench/rope [--dir fwd,bwd] ...
//
// Rotary embedding by itself, as decoding uses it: 128 rows a sample of 9 heads of 64. Attention applies its own on the
// way. Least bytes: x and y once.
#include "kernels/rope/rope.h"

#include <cmath>

#include "bench/common/kernel_bench.h"
#include "tests/support/attention_reference.h"

using namespace nanovlm;
using namespace nanovlm::bench;
namespace reference = nanovlm::testing::reference;

namespace {

constexpr int kHeads = 9, kHeadSize = 64;
constexpr int64_t kTokens = 128;

Tensor table(double (*f)(double), const Device& device) {
  std::vector<float> values;
  for (int64_t t = 0; t < kTokens; ++t)
    for (int d = 0; d < kHeadSize / 2; ++d)
      values.push_back(static_cast<float>(f(static_cast<double>(t) * std::pow(10000.0, -2.0 * d / kHeadSize))));
  return from_host(values, {kTokens, kHeadSize / 2}, device);
}

Instance instance_of(bool inverse, int64_t R, DType dtype, const Device& device, uint64_t seed) {
  Random random(seed);
  const Tensor x = normal({R, kHeads * kHeadSize}, dtype, random, device), y = empty_like(x);
  std::vector<int32_t> places;
  for (int64_t r = 0; r < R; ++r) places.push_back(static_cast<int32_t>(r % kTokens));
  const Tensor cos = table(std::cos, device), sin = table(std::sin, device), at = from_host(places, {R}, device);
  const auto run = [=] {
    on(device, "rope", [&](auto backend, Stream stream) {
      kernels::rope(backend, {x.data(), y.data(), cos.f32(), sin.f32(), at.i32(), R, kHeads, kHeadSize, inverse, dtype},
                    stream);
    });
  };
  const auto outcomes = [=]() -> std::vector<Outcome> {
    const auto of = [&]<class Real>(Type<Real>) {
      return reference::rope<Real>(values_of(x), values_of(cos), values_of(sin), places, kHeads, kHeadSize, inverse,
                                   dtype);
    };
    return {{"y", values_of(y), of(Type<double>{}), of(Type<float>{})}};
  };
  return {run, outcomes, {}};
}

}  // namespace

int main(int argc, char** argv) {
  KernelBench bench("rope", {"fwd", "bwd"});
  return bench.run(argc, argv, [](const Request& request) {
    std::vector<Case> cases;
    const int64_t B = request.batch_or(256, 12, 4), R = B * kTokens;
    for (const DType dtype : request.dtypes)
      for (const bool inverse : {false, true}) {
        Case c{"rope", inverse ? "bwd" : "fwd",
               dtype,  {{"rows", R}, {"heads", kHeads}},
               0,      static_cast<double>(2 * R * kHeads * kHeadSize * size_of(dtype))};
        c.full = 256.0 / static_cast<double>(B), c.sources = {"kernels/rope/rope.cu"};
        c.make = [=, device = request.device](uint64_t seed) { return instance_of(inverse, R, dtype, device, seed); };
        cases.push_back(std::move(c));
      }
    return cases;
  });
}
