#include "model/sampling.h"

#include <cmath>

#include "kernels/sampling/sampling.h"

#include "engine/error.h"

namespace nanovlm {

void SamplingOptions::validate() const {
  check(top_k >= 0, "sampling: top_k is ", top_k, ", but must be 0 (off) or more");
  check(top_p >= 0 && top_p <= 1, "sampling: top_p is ", top_p, ", but must be 0 to 1");
  check(greedy || (std::isfinite(temperature) && temperature > 0), "sampling: temperature is ", temperature,
        ", but must be above 0");
}

std::vector<int32_t> sample(const Tensor& logits, const SamplingOptions& options, std::vector<Random>& random) {
  options.validate();
  check(logits.rank() == 2 && logits.size(1) > 0 && logits.size(0) == static_cast<int64_t>(random.size()),
        "sample: logits are ", logits.shape(), ", but there are ", random.size(), " streams of random numbers");
  const int64_t R = logits.size(0), V = logits.size(1);
  Tensor uniform;
  if (!options.greedy) {
    std::vector<float> drawn;
    for (Random& stream : random) drawn.push_back(static_cast<float>(stream.uniform()));
    uniform = from_host(drawn, {R}, logits.device());
  }
  const Tensor tokens = empty({R}, DType::i32, logits.device());
  on(logits.device(), "sampling", [&](auto backend, Stream stream) {
    kernels::sampling(backend,
                      {logits.f32(), uniform.defined() ? uniform.f32() : nullptr, tokens.i32(), nullptr, R, V,
                       options.top_k, static_cast<float>(options.top_p), static_cast<float>(options.temperature)},
                      stream);
  });
  std::vector<int32_t> result = to_host_i32(tokens);
  for (int64_t r = 0; r < R; ++r)
    check(result[static_cast<size_t>(r)] >= 0, "sample: row ", r,
          ": a logit is not a number, or the largest is not finite");
  return result;
}

}  // namespace nanovlm
