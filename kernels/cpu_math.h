// What the CPU kernels share: exp and the sigmoid in a form that compilers vectorise, and the division of elements
// among threads.
//
// Everything here has internal linkage. These files are compiled once for each instruction set, and a function that the
// linker may merge could bring AVX-512 into the baseline's code.
#pragma once
#include <cmath>

#include "kernels/parallel.h"
#include "kernels/types.h"

namespace nanovlm::kernels {
namespace {

// e^x to within 2 ulp, without a branch or a table. NaN stays NaN; too large is inf, too small is 0, and results below
// the smallest normal number lose bits gradually.
//   n = round(x / ln 2),  f = x - n ln 2 in [-0.35, 0.35],  e^x = 2^n e^f
[[maybe_unused, gnu::always_inline]] inline float exp(float x) {
  // Past these e^x is inf and 0 in fp32, and 2^n still fits its two factors. A comparison with NaN leaves x alone.
  constexpr float kLargest = 89, kSmallest = -104;
  x = x > kLargest ? kLargest : x;
  x = x < kSmallest ? kSmallest : x;

  // Adding 1.5 * 2^23 leaves the rounded integer in the low bits of the sum.
  constexpr float kRound = 12582912.0f, kInverseLn2 = 1.44269504f;
  const float shifted = x * kInverseLn2 + kRound;
  const float n = shifted - kRound;

  // ln 2 in two parts: n times the first, of 15 bits, is exact.
  constexpr float kLn2High = 0.693145751953125f, kLn2Low = 1.42860682e-6f;
  const float f = (x - n * kLn2High) - n * kLn2Low;

  // e^f = 1 + f + f^2 q(f): q is the minimax fit, off by 4e-9 of e^f.
  float q = 1.38142216e-3f;
  q = q * f + 8.36889911e-3f;
  q = q * f + 4.16684039e-2f;
  q = q * f + 1.66665196e-1f;
  q = q * f + 4.9999994e-1f;
  const float power = 1.0f + (f + f * f * q);

  const int32_t exponent = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRound);
  const int32_t half = exponent >> 1;  // 2^n in two factors: n itself may lie outside a float's exponents
  return power * std::bit_cast<float>((half + 127) << 23) * std::bit_cast<float>((exponent - half + 127) << 23);
}

// sigmoid(x) and 1 - sigmoid(x) = sigmoid(-x), neither of which cancels: slopes of the sigmoid need both.
struct SigmoidPair {
  float plus, minus;
};
[[maybe_unused, gnu::always_inline]] inline SigmoidPair sigmoid_pair(float x) {
  const float e = exp(-std::fabs(x)), large = 1.0f / (1.0f + e), small = e * large;
  return {x < 0 ? small : large, x < 0 ? large : small};
}

[[maybe_unused, gnu::always_inline]] inline float sigmoid(float x) { return sigmoid_pair(x).plus; }

// Below this many elements a second thread costs more than it saves.
constexpr int64_t kGrain = 16384;

// Calls f(begin, end) on ranges that tile [0, n), on several threads. Every range but the last ends on a multiple of
// 64, so that a vector loop puts an element into the same lane, or into the remainder, whatever the number of threads.
template <class F>
void parallel_elements(int64_t n, const F& f) {
  constexpr int64_t kBlock = 64;
  parallel_for(ceil_div(n, kBlock), kGrain / kBlock,
               [&](int64_t begin, int64_t end) { f(begin * kBlock, end * kBlock < n ? end * kBlock : n); });
}

// Calls f(begin, end) on ranges that tile [0, R), on several threads. Rows have C elements.
template <class F>
void parallel_rows(int64_t R, int64_t C, const F& f) {
  parallel_for(R, ceil_div(kGrain, C > 0 ? C : 1), f);
}

// y = value, rounded to y's type. A bf16 is written through its member: gcc does not vectorise assignments of structs.
[[maybe_unused, gnu::always_inline]] inline void store(float& y, float value) { y = value; }
[[maybe_unused, gnu::always_inline]] inline void store(bf16& y, float value) { y.bits = bf16(value).bits; }

template <class T>
const T* as(const void* p) {
  return static_cast<const T*>(p);
}

template <class T>
T* as(void* p) {
  return static_cast<T*>(p);
}

}  // namespace
}  // namespace nanovlm::kernels
