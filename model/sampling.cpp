#include "model/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/error.h"

namespace nanovlm {
namespace {

// exp(logit / temperature) over its sum; `order` says which logits and in which order the sum runs.
std::vector<float> softmax(std::span<const float> logits, std::span<const int32_t> order, double temperature) {
  std::vector<float> p(order.size());
  if (order.empty()) return p;
  const double largest = logits[static_cast<size_t>(order[0])] / temperature;
  double sum = 0;
  for (const int32_t i : order) sum += std::exp(logits[static_cast<size_t>(i)] / temperature - largest);
  for (size_t i = 0; i < order.size(); ++i)
    p[i] = static_cast<float>(std::exp(logits[static_cast<size_t>(order[i])] / temperature - largest) / sum);
  return p;
}

// Every token that top-k leaves, likeliest first.
std::vector<int32_t> top_k_order(std::span<const float> logits, int64_t top_k) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto likelier = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  };
  if (top_k > 0 && top_k < static_cast<int64_t>(order.size())) {
    std::nth_element(order.begin(), order.begin() + top_k - 1, order.end(), likelier);
    const float smallest = logits[static_cast<size_t>(order[static_cast<size_t>(top_k) - 1])];
    order.erase(std::remove_if(order.begin(), order.end(),
                               [&](int32_t i) { return !(logits[static_cast<size_t>(i)] >= smallest); }),
                order.end());
  }
  std::sort(order.begin(), order.end(), likelier);
  return order;
}

}  // namespace

void SamplingOptions::validate() const {
  check(top_k >= 0, "sampling: top_k is ", top_k, ", but must be 0 (off) or more");
  check(top_p >= 0 && top_p <= 1, "sampling: top_p is ", top_p, ", but must be 0 to 1");
  check(greedy || (std::isfinite(temperature) && temperature > 0), "sampling: temperature is ", temperature,
        ", but must be above 0");
}

std::vector<Candidate> candidates(std::span<const float> logits, const SamplingOptions& options) {
  std::vector<int32_t> order = top_k_order(logits, options.top_k);
  if (options.top_p < 1) {
    // The sum includes the token itself and runs in fp32, as torch.cumsum does.
    const std::vector<float> p = softmax(logits, order, 1.0);
    float sum = 0;
    size_t kept = 0;
    for (; kept < order.size(); ++kept) {
      sum += p[kept];
      if (kept > 0 && sum > static_cast<float>(options.top_p)) break;
    }
    order.resize(kept);
  }
  const std::vector<float> p = softmax(logits, order, options.temperature);
  std::vector<Candidate> result;
  for (size_t i = 0; i < order.size(); ++i) result.push_back({order[i], p[i]});
  return result;
}

int32_t sample(std::span<const float> logits, const SamplingOptions& options, Random& random) {
  check(!logits.empty(), "sample: no logits");
  for (const float value : logits) check(!std::isnan(value), "sample: a logit is not a number");
  if (options.greedy) return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  const std::vector<Candidate> from = candidates(logits, options);
  double left = random.uniform();
  for (const Candidate& candidate : from)
    if ((left -= candidate.probability) < 0) return candidate.token;
  return from.back().token;
}

}  // namespace nanovlm
