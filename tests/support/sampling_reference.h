// Sampling as its contract says it (kernels/sampling/sampling.h), in fp64 and with a sort.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

#include "tests/support/values.h"

namespace nanovlm::testing {

constexpr double kSamplingRounding = 1e-6;  // of probabilities and of their sums

struct Filters {
  int64_t top_k = 0;
  double top_p = 1, temperature = 1;
};

// Of one row.
struct ExpectedTokens {
  std::vector<int64_t> order;  // the tokens that stay, likeliest first
  Values probabilities;        // of those

  ExpectedTokens(const double* logits, int64_t V, const Filters& f) : order(static_cast<size_t>(V)) {
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return logits[a] > logits[b]; });
    if (f.top_k > 0 && f.top_k < V) {
      const double smallest = logits[order[f.top_k - 1]];
      order.erase(std::find_if(order.begin(), order.end(), [&](int64_t i) { return logits[i] < smallest; }),
                  order.end());
    }
    const Values p = softmax(logits, 1);
    double sum = 0;
    for (size_t i = 0; f.top_p < 1 && i < order.size(); ++i)
      if ((sum += p[i]) > f.top_p && i > 0) order.resize(i);
    order.resize(std::max<size_t>(order.size(), 1));
    probabilities = softmax(logits, f.temperature);
  }

  // The probabilities of all V tokens.
  Values spread(int64_t V) const {
    Values all(static_cast<size_t>(V), 0.0);
    for (size_t i = 0; i < order.size(); ++i) all[static_cast<size_t>(order[i])] = probabilities[i];
    return all;
  }

  // How far `uniform` lies from where the token is the one at which the sum of probabilities exceeds it; infinitely far
  // where the token is gone.
  double misses(int64_t token, double uniform) const {
    double before = 0;
    for (size_t i = 0; i < order.size(); before += probabilities[i++])
      if (order[i] == token) return std::max({before - uniform, uniform - before - probabilities[i], 0.0});
    return std::numeric_limits<double>::infinity();
  }

  Values softmax(const double* logits, double temperature) const {
    Values p;
    double sum = 0;
    for (const int64_t i : order) sum += p.emplace_back(std::exp((logits[i] - logits[order[0]]) / temperature));
    for (double& value : p) value /= sum;
    return p;
  }
};

}  // namespace nanovlm::testing
