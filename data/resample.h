// The weighted sums of a resize along one direction, exact to the bit on every processor.
//
//   scale   = in / out,  reach = max(scale, 1)                        the filter widens when a picture shrinks
//   centre  = (i + 0.5) * scale                                       of output i, in input coordinates
//   weight  = filter((j + 0.5 - centre) / reach), normalised to sum 1 in double, then rounded to 22-bit fixed point
//   out[i]  = clip((2^21 + sum_j weight[j] * in[j]) >> 22)            in int32
//
// Not for use outside data/.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "data/image.h"

// Inner loops are compiled for several instruction sets and chosen when the program is loaded. The sanitizers' own
// start-up comes later than that choice, so their builds do without.
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define NANOVLM_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define NANOVLM_CLONES
#endif

namespace nanovlm {

// Output i is the sum over t < count[i] of weight[start[i] + t] * input[first[i] + t].
struct Taps {
  std::vector<int> first, count;
  std::vector<int64_t> start;
  std::vector<int32_t> weight;

  Taps(int in, int out, Filter filter);
};

// The weights in quads of taps, each quad as three words of four signed bytes, low bytes first:
// weight = byte[0] + 256 byte[1] + 65536 byte[2]. Taps behind the last have weight 0.
struct ByteTaps {
  std::vector<int64_t> start;  // of each output, and the end
  std::vector<uint32_t> words;

  ByteTaps() = default;
  explicit ByteTaps(const Taps& taps);
};

class Resampler {
 public:
  static constexpr int kRows = 4;    // rows that columns() takes at a time
  static constexpr int kSlack = 32;  // bytes behind a row of columns() that may be read
  static constexpr int kChunk = 64;  // row() reads and writes so many bytes at a time, also the last ones

  // Whether the processor multiplies and adds bytes (AVX-512 VNNI): the fast way to the same bits.
  static bool has_byte_products();

  // byte_products: false takes the other way. Error: true where the processor lacks them.
  Resampler(int in, int out, Filter filter, bool byte_products = has_byte_products());

  // in[kRows] -> out[kRows], each a row of RGB, `in` and `out` pixels wide. A byte behind each out row is overwritten.
  void columns(const uint8_t* const in[kRows], uint8_t* const out[kRows]) const;

  // The input rows that output row y is made of, and the most that any takes.
  int first(int y) const { return taps_.first[y]; }
  int count(int y) const { return taps_.count[y]; }
  int most_taps() const { return *std::max_element(taps_.count.begin(), taps_.count.end()); }

  // Output row y, of `bytes` bytes, from the input rows first(y), first(y) + 1..., `stride` bytes apart.
  void row(int y, const uint8_t* in, int64_t stride, int64_t bytes, uint8_t* out) const;

 private:
  Taps taps_;
  ByteTaps bytes_;  // empty without byte_products
};

}  // namespace nanovlm
