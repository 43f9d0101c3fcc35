// bench/pixel_shuffle [--dir fwd,bwd] ...
//
// Pixel shuffle of the picture's 14 x 14 patches of 768 channels by a factor of 2; backward moves them back. Least
// bytes: every entry read and written once. On GPUs also the modality projector as one product over x as it lies;
// separate: shuffled rows written, then the library's product, as the model does it.
#include "kernels/pixel_shuffle/pixel_shuffle.h"

#include <algorithm>

#include "bench/common/kernel_bench.h"
#include "bench/common/product_outcome.h"
#include "kernels/pixel_shuffle/projector.h"
#include "tests/support/reference.h"

using namespace nanovlm;
using namespace nanovlm::bench;
namespace reference = nanovlm::testing::reference;

namespace {

constexpr int64_t kChannels = 768, kProjected = 576;
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

// The projector's operands on a device, and its results beside plain products of shuffled rows.
struct ProjectorOperands {
  static constexpr int64_t K = kChannels * kFactor * kFactor;
  int64_t B, R;
  Tensor x, weight, y, dy, dx, dweight, shuffled;

  ProjectorOperands(int64_t B, const Device& device, uint64_t seed) : B(B), R(B * kSide * kSide / kFactor / kFactor) {
    Random random(seed);
    x = normal({B * kSide * kSide, kChannels}, DType::bf16, random, device), dx = empty_like(x);
    weight = normal({kProjected, K}, DType::bf16, random, device, 0.02f);
    dy = normal({R, kProjected}, DType::bf16, random, device), y = empty_like(dy);
    dweight = empty({kProjected, K}, DType::f32, device), shuffled = empty({R, K}, DType::bf16, device);
  }

  static bf16* at(const Tensor& t) { return static_cast<bf16*>(t.data()); }
  kernels::Projector forward() const { return {at(x), at(weight), at(y), B, kChannels, kProjected, kSide, kFactor}; }
  kernels::ProjectorBackward backward() const {
    return {at(x), at(weight), at(dy),     dx.data(), dweight.f32(), false,
            B,     kChannels,  kProjected, kSide,     kFactor,       DType::bf16};
  }
  kernels::PixelShuffle shuffle(bool inverse) const {
    const Tensor &from = inverse ? shuffled : x, &to = inverse ? dx : shuffled;
    return {from.data(), to.data(), B, kChannels, kSide, kFactor, inverse, DType::bf16};
  }
  // Between shuffled rows and weight, y = rows weight^T and the gradients.
  kernels::Matmul y_product() const {
    return {shuffled.data(), weight.data(), y.data(), nullptr,     R,          kProjected, K,
            false,           true,          false,    DType::bf16, DType::bf16};
  }
  kernels::Matmul dx_product() const {
    return {dy.data(),  weight.data(), shuffled.data(), nullptr, R,           K,
            kProjected, false,         false,           false,   DType::bf16, DType::bf16};
  }
  kernels::Matmul dweight_product() const {
    return {dy.data(), shuffled.data(), dweight.data(), nullptr,     kProjected, K, R,
            true,      false,           false,          DType::bf16, DType::f32};
  }

  Values rows_of(const Tensor& t) const {
    return reference::pixel_shuffle(values_of(t), B, kChannels, kSide, kFactor, false);
  }
  std::vector<Outcome> outcomes(bool backward) const {
    const Device& device = x.device();
    if (!backward) return {product_outcome("y", y_product(), rows_of(x), values_of(weight), values_of(y), device)};
    return {product_outcome("dx", dx_product(), values_of(dy), values_of(weight), rows_of(dx), device),
            product_outcome("dweight", dweight_product(), values_of(dy), rows_of(x), values_of(dweight), device)};
  }
};

Instance projector_instance(bool backward, int64_t B, const Device& device, uint64_t seed) {
  const ProjectorOperands operands(B, device, seed);
  const auto fused = [=] {
    on(device, "projector", [&](auto backend, Stream stream) {
      if constexpr (kernels::kHasGemm<decltype(backend)>)
        backward ? kernels::projector_backward(backend, operands.backward(), stream)
                 : kernels::projector(backend, operands.forward(), stream);
    });
  };
  const auto separate = [=] {
    on(device, "projector", [&](auto backend, Stream stream) {
      kernels::pixel_shuffle(backend, operands.shuffle(false), stream);
      if (!backward) return kernels::matmul(backend, operands.y_product(), stream);
      kernels::matmul(backend, operands.dweight_product(), stream);
      kernels::matmul(backend, operands.dx_product(), stream);
      kernels::pixel_shuffle(backend, operands.shuffle(true), stream);
    });
  };
  return {fused, [=] { return operands.outcomes(backward); }, {{"separate", separate}}};
}

// On `backward` both gradients.
Case projector_case(bool backward, const Request& request) {
  const int64_t B = request.batch_or(256, 12, 1), R = B * kSide * kSide / kFactor / kFactor;
  constexpr int64_t K = ProjectorOperands::K, N = kProjected;
  const double products = static_cast<double>(2 * R * K * N);
  const int64_t once = 2 * (R * K + N * K + R * N);
  Case c{"projector",
         backward ? "bwd" : "fwd",
         DType::bf16,
         {{"batch", B}, {"channels", kChannels}},
         backward ? 2 * products : products,
         static_cast<double>(backward ? once + 2 * R * K + 4 * N * K : once)};
  c.full = 256.0 / static_cast<double>(B), c.sources = {"kernels/pixel_shuffle/projector.cu"};
  c.make = [=, device = request.device](uint64_t seed) { return projector_instance(backward, B, device, seed); };
  return c;
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
    if (request.device.kind() != DeviceKind::cpu &&
        std::count(request.dtypes.begin(), request.dtypes.end(), DType::bf16))
      for (const std::string& dir : request.directions) cases.push_back(projector_case(dir == "bwd", request));
    return cases;
  });
}
