// Counter-based random numbers: Philox 4x32-10 (Salmon et al. 2011). The n-th number of a (seed, stream) pair depends
// on nothing else, so a position is a complete state and parts of a sequence can be drawn in any order, on any device.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/tensor.h"

namespace nanovlm {

// Ten rounds of Philox on one counter.
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

class Random {
 public:
  explicit Random(uint64_t seed, uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  uint32_t bits();
  double uniform();            // [0, 1), 24 bits: exact as a float
  double normal();             // mean 0, deviation 1 (Box-Muller)
  uint64_t below(uint64_t n);  // 0 .. n - 1, unbiased; n > 0

  uint64_t position() const { return position_; }  // numbers drawn
  void seek(uint64_t position) { position_ = position; }

 private:
  uint64_t seed_, stream_, position_ = 0;
  uint64_t drawn_block_ = UINT64_MAX;  // the counter that drawn_ comes from
  std::array<uint32_t, 4> drawn_{};
};

// On the host, then copied: the same numbers on every device.
Tensor random_normal(Shape shape, float deviation, Random& random, const Device& device);
Tensor random_uniform(Shape shape, float low, float high, Random& random, const Device& device);

// 0 .. n - 1 in a random order (Fisher-Yates).
std::vector<int64_t> permutation(int64_t n, uint64_t seed, uint64_t stream = 0);

// 64 bits that depend on every byte of the name (FNV-1a): a stream of its own for each parameter.
uint64_t hash_of(std::string_view name);

}  // namespace nanovlm
