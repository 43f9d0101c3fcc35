#include "engine/random.h"

#include <cmath>
#include <numbers>
#include <numeric>
#include <string_view>

#include "kernels/parallel.h"

namespace nanovlm {

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> c, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * c[0], b = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(b),
         static_cast<uint32_t>(a >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(a)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return c;
}

uint32_t Random::bits() {
  const uint64_t block = position_ / 4;
  if (block != drawn_block_) {
    drawn_ = philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), static_cast<uint32_t>(stream_),
                     static_cast<uint32_t>(stream_ >> 32)},
                    {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)});
    drawn_block_ = block;
  }
  return drawn_[position_++ % 4];
}

double Random::uniform() { return (bits() >> 8) * 0x1p-24; }

double Random::normal() {
  const double u = (bits() + 0.5) * 0x1p-32;  // never 0
  const double v = uniform();
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
}

uint64_t Random::below(uint64_t n) {
  const uint64_t limit = UINT64_MAX - UINT64_MAX % n;
  for (;;) {
    const uint64_t high = bits(), low = bits(), value = high << 32 | low;
    if (value < limit) return value % n;
  }
}

Tensor random_normal(Shape shape, float deviation, Random& random, const Device& device) {
  const int64_t n = shape.numel();
  std::vector<float> values(static_cast<size_t>(n));
  const uint64_t first = (random.position() + 3) / 4 * 4;
  // Each counter gives four numbers, two Box-Muller pairs, so the work splits among threads at any place.
  kernels::parallel_for(ceil_div(n, 4), 1024, [&](int64_t begin, int64_t end) {
    Random local = random;
    for (int64_t block = begin; block < end; ++block) {
      local.seek(first + static_cast<uint64_t>(block) * 4);
      for (int64_t i = block * 4; i < block * 4 + 4; i += 2) {
        const double radius = std::sqrt(-2 * std::log((local.bits() + 0.5) * 0x1p-32));  // never log(0)
        const double angle = 2 * std::numbers::pi * local.uniform();
        if (i < n) values[static_cast<size_t>(i)] = static_cast<float>(radius * std::cos(angle)) * deviation;
        if (i + 1 < n) values[static_cast<size_t>(i + 1)] = static_cast<float>(radius * std::sin(angle)) * deviation;
      }
    }
  });
  random.seek(first + static_cast<uint64_t>(ceil_div(n, 4)) * 4);
  return from_host(values, std::move(shape), device);
}

Tensor random_uniform(Shape shape, float low, float high, Random& random, const Device& device) {
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  for (float& value : values) value = low + static_cast<float>(random.uniform()) * (high - low);
  return from_host(values, std::move(shape), device);
}

std::vector<int64_t> permutation(int64_t n, uint64_t seed, uint64_t stream) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  Random random(seed, stream);
  for (int64_t i = n - 1; i > 0; --i)
    std::swap(order[static_cast<size_t>(i)], order[random.below(static_cast<uint64_t>(i) + 1)]);
  return order;
}

uint64_t hash_of(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

}  // namespace nanovlm
