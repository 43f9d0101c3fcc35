// Sampling on a CPU. Threads take rows. Tokens are sorted by their logits, after top-k where it is on, so the sums run
// as the contract says them: top-p's in fp32, as torch.cumsum's does. Bound by the sort where top-k is off.
#include "kernels/sampling/sampling.h"

#include <algorithm>
#include <memory>

#include "kernels/cpu_math.h"
#include "kernels/cpu_scratch.h"

namespace nanovlm::kernels {
namespace {

struct Likelier {
  const float* logits;
  bool operator()(int32_t a, int32_t b) const {
    const float x = logits[a], y = logits[b];
    return x > y || (x == y && a < b);
  }
};

// Puts the tokens that top-k leaves at the front of order[V], likeliest first; returns how many.
int64_t top_k_order(const float* logits, int32_t* order, int64_t V, int64_t top_k) {
  for (int64_t v = 0; v < V; ++v) order[v] = static_cast<int32_t>(v);
  const Likelier likelier{logits};
  int64_t left = V;
  if (top_k > 0 && top_k < V) {
    std::nth_element(order, order + top_k - 1, order + V, likelier);
    const float smallest = logits[order[top_k - 1]];
    left = top_k;  // the others may hold ties
    for (int64_t i = top_k; i < V; ++i)
      if (logits[order[i]] == smallest) order[left++] = order[i];
  }
  std::sort(order, order + left, likelier);
  return left;
}

// p[i] = softmax of the logits order[0 ... n - 1] over the temperature
void softmax(const float* logits, const int32_t* order, int64_t n, double temperature, float* p) {
  const double largest = logits[order[0]] / temperature;
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(logits[order[i]] / temperature - largest);
  for (int64_t i = 0; i < n; ++i) p[i] = static_cast<float>(std::exp(logits[order[i]] / temperature - largest) / sum);
}

int64_t top_p_count(const float* p, int64_t n, float top_p) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    sum += p[i];
    if (i > 0 && sum > top_p) return i;
  }
  return n;
}

int32_t draw(const int32_t* order, const float* p, int64_t n, double uniform) {
  for (int64_t i = 0; i < n; ++i)
    if ((uniform -= p[i]) < 0) return order[i];
  return order[n - 1];
}

// The largest logit's token; -1 as the contract says.
int32_t likeliest(const float* logits, int64_t V) {
  int64_t best = 0;
  for (int64_t v = 0; v < V; ++v) {
    if (logits[v] != logits[v]) return -1;
    if (logits[v] > logits[best]) best = v;
  }
  return std::isfinite(logits[best]) ? static_cast<int32_t>(best) : -1;
}

void sample_row(const Sampling& a, int64_t row, int32_t* order, float* p) {
  const float* logits = a.logits + row * a.V;
  a.tokens[row] = likeliest(logits, a.V);
  if (!a.uniform || a.tokens[row] < 0) return;
  int64_t n = top_k_order(logits, order, a.V, a.top_k);
  if (a.top_p < 1) {
    softmax(logits, order, n, 1, p);
    n = top_p_count(p, n, a.top_p);
  }
  softmax(logits, order, n, a.temperature, p);
  a.tokens[row] = draw(order, p, n, a.uniform[row]);
  if (!a.probabilities) return;
  float* probabilities = a.probabilities + row * a.V;
  for (int64_t v = 0; v < a.V; ++v) probabilities[v] = 0;
  for (int64_t i = 0; i < n; ++i) probabilities[order[i]] = p[i];
}

}  // namespace

template <>
void sampling(ThisBackend, const Sampling& a, Stream) {
  parallel_rows(a.R, a.V, [&](int64_t begin, int64_t end) {
    const std::unique_ptr<int32_t[]> order(new int32_t[static_cast<size_t>(a.V)]);
    const Floats p(a.V);
    for (int64_t row = begin; row < end; ++row) sample_row(a, row, order.get(), p);
  });
}

}  // namespace nanovlm::kernels
