// bench/pixel_shuffle [--dir fwd,bwd] ...
//
// Pixel shuffle of the picture's 14 x 14 patches of 768 channels by a factor of 2; backward moves them back. Least
// bytes: every entry read and written once.
#include "kernels/pixel_shuffle/pixel_shuffle.h"

#include "bench/common/kernel_bench.h"
#include "tests/support/reference.h"

using namespace nanovlm;
using namespace nanovlm::bench;
namespace reference = nanovlm::testing::reference;

namespace {

constexpr int64_t kChannels = 768;
constexpr int kSide = 14, kFactor = 2;

Instance instance_of(bool inverse, int64_t B, DType dtype, const Device& device, uint64_t seed) {
  Random random(seed);
  const Tensor x = normal({B * kSide * kSide, kChannels}, dtype, random, device), y = empty_like(x);
  const auto run = [=] {
    on(device, "pixel_shuffle", [&](auto backend, Stream stream) {
      kernels::pixel_shuffle(backend, {x.data(), y.data(), B, kChannels, kSide, kFactor, inverse, dtype}, stream);
    });
  };
  const auto outcomes = [=]() -> std::vector<Outcome> {
    const Values moved = reference::pixel_shuffle(values_of(x), B, kChannels, kSide, kFactor, inverse);
    return {{"y", values_of(y), moved, moved}};
  };
  return {run, outcomes, {}};
}

}  // namespace

int main(int argc, char** argv) {
  KernelBench bench("pixel_shuffle", {"fwd", "bwd"});
  return bench.run(argc, argv, [](const Request& request) {
    std::vector<Case> cases;
    const int64_t B = request.batch_or(256, 12, 1);
    for (const DType dtype : request.dtypes)
      for (const bool inverse : {false, true}) {
        Case c{"pixel_shuffle",
               inverse ? "bwd" : "fwd",
               dtype,
               {{"batch", B}, {"channels", kChannels}},
               0,
               static_cast<double>(2 * B * kSide * kSide * kChannels * size_of(dtype))};
        c.full = 256.0 / static_cast<double>(B), c.sources = {"kernels/pixel_shuffle/pixel_shuffle.cu"};
        c.make = [=, device = request.device](uint64_t seed) { return instance_of(inverse, B, dtype, device, seed); };
        cases.push_back(std::move(c));
      }
    return cases;
  });
}
