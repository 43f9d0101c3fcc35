#include "apps/inspect/sha256.h"

#include <array>
#include <bit>
#include <cmath>
#include <vector>

namespace nanovlm::inspect {
namespace {

// The first 64 primes: the standard's constants are the leading 32 bits behind the point of their square roots (the
// start value, 8 of them) and cube roots (one a round).
std::array<int, 64> primes() {
  std::array<int, 64> found{};
  size_t n = 0;
  for (int candidate = 2; n < found.size(); ++candidate) {
    bool prime = true;
    for (size_t i = 0; i < n && prime; ++i) prime = candidate % found[i] != 0;
    if (prime) found[n++] = candidate;
  }
  return found;
}

uint32_t fraction_bits(long double x) { return static_cast<uint32_t>((x - std::floor(x)) * 4294967296.0L); }

using State = std::array<uint32_t, 8>;

void add_block(State& state, const uint8_t* block, const std::array<uint32_t, 64>& round_constants) {
  std::array<uint32_t, 64> w{};
  for (size_t i = 0; i < 16; ++i)
    w[i] = uint32_t{block[4 * i]} << 24 | uint32_t{block[4 * i + 1]} << 16 | uint32_t{block[4 * i + 2]} << 8 |
           block[4 * i + 3];
  for (size_t i = 16; i < 64; ++i) {
    const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
    const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (size_t i = 0; i < 64; ++i) {
    const uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + round_constants[i] + w[i];
    const uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
  }
  const State after = {a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < state.size(); ++i) state[i] += after[i];
}

}  // namespace

std::string sha256(std::span<const uint8_t> bytes) {
  const std::array<int, 64> prime = primes();
  State state{};
  std::array<uint32_t, 64> round_constants{};
  for (size_t i = 0; i < state.size(); ++i) state[i] = fraction_bits(std::sqrt(static_cast<long double>(prime[i])));
  for (size_t i = 0; i < prime.size(); ++i)
    round_constants[i] = fraction_bits(std::cbrt(static_cast<long double>(prime[i])));

  const size_t whole = bytes.size() / 64 * 64;
  for (size_t at = 0; at < whole; at += 64) add_block(state, bytes.data() + at, round_constants);
  // The rest, a 1 bit, zeros, and the length in bits fill one block or two.
  std::vector<uint8_t> tail(bytes.begin() + static_cast<std::ptrdiff_t>(whole), bytes.end());
  tail.push_back(0x80);
  while (tail.size() % 64 != 56) tail.push_back(0);
  for (int shift = 56; shift >= 0; shift -= 8)
    tail.push_back(static_cast<uint8_t>(uint64_t{bytes.size()} * 8 >> shift));
  for (size_t at = 0; at < tail.size(); at += 64) add_block(state, tail.data() + at, round_constants);

  std::string digits;
  for (const uint32_t word : state)
    for (int shift = 28; shift >= 0; shift -= 4) digits += "0123456789abcdef"[word >> shift & 15];
  return digits;
}

}  // namespace nanovlm::inspect
