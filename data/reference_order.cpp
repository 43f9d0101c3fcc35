#include "data/reference_order.h"

#include <array>
#include <bit>
#include <limits>
#include <numeric>
#include <random>
#include <utility>

#include "engine/error.h"

namespace nanovlm {
namespace {

__extension__ using uint128 = unsigned __int128;

// numpy's SeedSequence(seed).generate_state(4, uint64): a pool of four words into which the seed is mixed, then a hash
// of the pool.
std::array<uint64_t, 4> seed_sequence(uint64_t seed) {
  uint32_t multiplier = 0x43b0d7e5;
  const auto hash = [&](uint32_t value) {
    value ^= multiplier;
    multiplier *= 0x931e8875;
    value *= multiplier;
    return value ^ value >> 16;
  };
  std::array<uint32_t, 4> pool = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), 0, 0};
  for (uint32_t& word : pool) word = hash(word);
  for (size_t from = 0; from < 4; ++from)
    for (size_t to = 0; to < 4; ++to)
      if (from != to) {
        const uint32_t mixed = 0xca01f9dd * pool[to] - 0x4973f715 * hash(pool[from]);
        pool[to] = mixed ^ mixed >> 16;
      }

  std::array<uint64_t, 4> state{};
  multiplier = 0x8b51f9dd;
  for (size_t i = 0; i < 8; ++i) {
    uint32_t value = pool[i % 4] ^ multiplier;
    multiplier *= 0x58f38ded;
    value *= multiplier;
    state[i / 2] |= uint64_t{value ^ value >> 16} << 32 * (i % 2);
  }
  return state;
}

// PCG XSL RR 128/64, with numpy's buffered halves.
class Pcg64 {
 public:
  explicit Pcg64(uint64_t seed) {
    const auto words = seed_sequence(seed);
    increment_ = (uint128{words[2]} << 64 | words[3]) << 1 | 1;
    step();
    state_ += uint128{words[0]} << 64 | words[1];
    step();
  }

  uint64_t next64() {
    step();
    const auto high = static_cast<uint64_t>(state_ >> 64), low = static_cast<uint64_t>(state_);
    return std::rotr(high ^ low, static_cast<int>(high >> 58));
  }

  uint32_t next32() {
    if (buffered_) return buffered_ = false, buffer_;
    const uint64_t both = next64();
    buffered_ = true;
    buffer_ = static_cast<uint32_t>(both >> 32);
    return static_cast<uint32_t>(both);
  }

  // 0 .. most, unbiased.
  uint64_t up_to(uint64_t most) {
    const uint64_t mask = std::numeric_limits<uint64_t>::max() >> std::countl_zero(most);
    for (;;) {
      const uint64_t value = (most <= std::numeric_limits<uint32_t>::max() ? next32() : next64()) & mask;
      if (value <= most) return value;
    }
  }

 private:
  void step() { state_ = state_ * (uint128{0x2360ed051fc65da4} << 64 | 0x4385df649fccf645) + increment_; }

  uint128 state_ = 0, increment_ = 0;
  bool buffered_ = false;
  uint32_t buffer_ = 0;
};

std::vector<int64_t> numbers(int64_t n) {
  std::vector<int64_t> all(static_cast<size_t>(n));
  std::iota(all.begin(), all.end(), int64_t{0});
  return all;
}

}  // namespace

std::vector<int64_t> numpy_permutation(int64_t n, uint64_t seed) {
  std::vector<int64_t> order = numbers(n);
  Pcg64 random(seed);
  for (size_t i = order.size(); i-- > 1;) std::swap(order[i], order[random.up_to(i)]);
  return order;
}

std::vector<int64_t> torch_permutation(int64_t n, uint64_t seed) {
  constexpr int64_t kLimit = std::numeric_limits<uint32_t>::max() / 20;  // beyond it torch draws 64 bits a step
  check(n < kLimit, "order of the reference: expected fewer than ", kLimit, " rows, found ", n);
  std::vector<int64_t> order = numbers(n);
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (size_t i = 0; i + 1 < order.size(); ++i) std::swap(order[i], order[i + random() % (order.size() - i)]);
  return order;
}

}  // namespace nanovlm
