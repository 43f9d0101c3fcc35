// The shapes that bench/attention measures.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "kernels/types.h"

namespace nanovlm::bench {

// leftpad: the first third of every other sequence is padding. varlen: sequences of other lengths lie end to end.
enum class Mask : uint8_t { none, leftpad, varlen };

struct Problem {
  int64_t B, T;  // sequences, tokens of one
  int H, G, D;   // query heads, key/value heads, head size
  bool causal, rope;
  Mask mask;
  DType dtype;
  std::vector<int64_t> lengths;  // of the B sequences: T, but for varlen, where they are T at most

  int64_t rows() const { return std::accumulate(lengths.begin(), lengths.end(), int64_t{0}); }
  int64_t longest() const { return *std::max_element(lengths.begin(), lengths.end()); }
  int64_t first_row(int64_t b) const { return std::accumulate(lengths.begin(), lengths.begin() + b, int64_t{0}); }
  float scale() const { return static_cast<float>(1 / std::sqrt(static_cast<double>(D))); }
  // Products of scores with FlashAttention's convention.
  double flops() const {
    const int64_t scores = std::inner_product(lengths.begin(), lengths.end(), lengths.begin(), int64_t{0});
    return 4.0 * static_cast<double>(H * D) * static_cast<double>(scores) * (causal ? 0.5 : 1);
  }
  double q_bytes() const { return static_cast<double>(rows() * H * D * size_of(dtype)); }
  double kv_bytes() const { return static_cast<double>(rows() * G * D * size_of(dtype)); }
};

}  // namespace nanovlm::bench
