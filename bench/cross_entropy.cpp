// bench/cross_entropy [--rows N] ...
//
// Loss and gradient of rows of fp32 logits over SmolLM2's vocabulary of 49152, as the head calls it chunk by chunk; the
// gradient has the dtype. Least bytes: logits read once, their gradient written once.
#include "kernels/cross_entropy/cross_entropy.h"

#include <algorithm>
#include <cmath>

#include <CLI/CLI.hpp>

#include "bench/common/kernel_bench.h"
#include "kernels/parallel.h"
#include "tests/support/reference.h"

using namespace nanovlm;
using namespace nanovlm::bench;
namespace reference = nanovlm::testing::reference;

namespace {

constexpr int64_t kVocabulary = 49152;

// The logarithm of every probability is stored, and read for the loss and for the gradient.
void by_log_probabilities(const Tensor& logits, const Tensor& targets, const Tensor& stored, const Tensor& loss,
                          const Tensor& dlogits, float scale) {
  const int64_t R = targets.numel();
  kernels::parallel_for(R, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* x = logits.f32() + r * kVocabulary;
      const float max = *std::max_element(x, x + kVocabulary);
      float sum = 0;
      for (int64_t v = 0; v < kVocabulary; ++v) sum += std::exp(x[v] - max);
      const float shift = max + std::log(sum);
      for (int64_t v = 0; v < kVocabulary; ++v) stored.f32()[r * kVocabulary + v] = x[v] - shift;
    }
  });
  for (int64_t r = 0; r < R; ++r) loss.f32()[r] = -stored.f32()[r * kVocabulary + targets.i32()[r]];
  with_float(dlogits.dtype(), [&]<class T>(Type<T>) {
    T* slopes = static_cast<T*>(dlogits.data());
    kernels::parallel_for(R, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * kVocabulary; i < end * kVocabulary; ++i) {
        const bool target = i % kVocabulary == targets.i32()[i / kVocabulary];
        slopes[i] = T(scale * (std::exp(stored.f32()[i]) - (target ? 1.0f : 0.0f)));
      }
    });
  });
}

Instance instance_of(int64_t R, DType dtype, const Device& device, uint64_t seed) {
  Random random(seed);
  const Tensor logits = normal({R, kVocabulary}, DType::f32, random, device, 3);
  std::vector<int32_t> ids;
  for (int64_t r = 0; r < R; ++r) ids.push_back(static_cast<int32_t>(random.below(kVocabulary)));
  const Tensor targets = from_host(ids, {R}, device), loss = empty({R}, DType::f32, device);
  const Tensor dlogits = empty({R, kVocabulary}, dtype, device);
  const float scale = 1 / static_cast<float>(R);
  const auto run = [=] {
    on(device, "cross_entropy", [&](auto backend, Stream stream) {
      kernels::cross_entropy(
          backend, {logits.f32(), targets.i32(), loss.f32(), dlogits.data(), R, kVocabulary, scale, dtype}, stream);
    });
  };
  const auto outcomes = [=]() -> std::vector<Outcome> {
    const Values x = values_of(logits), at = values_of(targets);
    auto exact = reference::cross_entropy<double>(x, at, kVocabulary, scale, dtype);
    auto rounded = reference::cross_entropy<float>(x, at, kVocabulary, scale, dtype);
    return {{"loss", values_of(loss), std::move(exact.loss), std::move(rounded.loss)},
            {"dlogits", values_of(dlogits), std::move(exact.dlogits), std::move(rounded.dlogits)}};
  };
  Instance instance{run, outcomes, {}};
  if (device.kind() == DeviceKind::cpu) {
    const Tensor stored = empty_like(logits);
    instance.baselines.push_back(
        {"naive", [=] { by_log_probabilities(logits, targets, stored, loss, dlogits, scale); }});
  }
  return instance;
}

}  // namespace

int main(int argc, char** argv) {
  int64_t rows = 0;
  KernelBench bench("cross_entropy", {"fwdbwd"});
  bench.app().add_option("--rows", rows, "rows whose label counts; default ten a sample")->check(CLI::PositiveNumber);
  return bench.run(argc, argv, [&](const Request& request) {
    std::vector<Case> cases;
    const int64_t R = rows > 0 ? rows : request.batch_or(256, 12, 1) * 10;
    for (const DType dtype : request.dtypes) {
      Case c{"cross_entropy",
             "fwdbwd",
             dtype,
             {{"rows", R}, {"vocabulary", kVocabulary}},
             0,
             static_cast<double>(R * kVocabulary * (4 + size_of(dtype)))};
      c.full = 2560.0 / static_cast<double>(R), c.sources = {"kernels/cross_entropy/cross_entropy.cu"};
      c.make = [=, device = request.device](uint64_t seed) { return instance_of(R, dtype, device, seed); };
      cases.push_back(std::move(c));
    }
    return cases;
  });
}
