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

// e^x to within 2 ulp, without a branch or a table: inf where it overflows, 0 below e^-86 (where normal numbers are
// about to end), NaN for NaN.
//   n = round(x / ln 2),  f = x - n ln 2 in [-0.35, 0.35],  e^x = 2^(n - 1) * 2 e^f
[[maybe_unused, gnu::always_inline]] inline float exp(float x) {
  constexpr float kSmallest = -86, kInfinite = 89;  // e^89 overflows, and its n is still an exponent of a float
  const float bounded = x > kInfinite ? kInfinite : x;

  // Adding 1.5 * 2^23 leaves the rounded integer in the low bits of the sum; adding 126 as well, the biased exponent of
  // 2^(n - 1), which is within a float's exponents where 2^n may not be.
  constexpr float kRound = 12582912.0f + 126.0f, kInverseLn2 = 1.44269504f;
  const float shifted = bounded * kInverseLn2 + kRound;
  const float n = shifted - kRound;
  const float power = std::bit_cast<float>(std::bit_cast<uint32_t>(shifted) << 23);

  // ln 2 in two parts: n times the first, of 15 bits, is exact.
  constexpr float kLn2High = 0.693145751953125f, kLn2Low = 1.42860682e-6f;
  const float f = (bounded - n * kLn2High) - n * kLn2Low;

  // 2 e^f = 2 + 2f + f^2 q(f): q is the minimax fit, off by 4e-9 of e^f.
  float q = 2.76284432e-3f;
  q = q * f + 1.673779822e-2f;
  q = q * f + 8.33368078e-2f;
  q = q * f + 3.33330392e-1f;
  q = q * f + 9.9999988e-1f;
  const float result = (2.0f + ((f + f) + f * f * q)) * power;
  return x < kSmallest ? 0.0f : result;
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
