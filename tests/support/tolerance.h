// How close a kernel must come to the fp64 formula: the project's one rule, with no thresholds tuned by hand.
//
// The reference formula is evaluated twice: in fp64 (`exact`), and in plain fp32 with every rounding that the contract
// documents (`rounded`). A kernel passes if its error is at most twice that of `rounded`, plus a few fp32 ulp.
#pragma once
#include <limits>

#include "tests/support/buffer.h"

namespace nanovlm::testing {

// Largest |a - b|. Equal infinities and two NaN are no difference; anything else that is not finite is infinitely far.
inline double max_error(const Values& a, const Values& b) {
  REQUIRE(a.size() == b.size());
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    const double error = std::abs(a[i] - b[i]);
    largest = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(largest, error);
  }
  return largest;
}

inline double max_magnitude(const Values& values) {
  double largest = 0;
  for (double value : values)
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  return largest;
}

// `terms`: the largest magnitude that was added up on the way to the result, where that exceeds the result itself
// (sums that cancel). An ulp is that of fp32 at the larger of the two.
inline void check_close(const char* what, const Values& got, const Values& exact, const Values& rounded,
                        double terms = 0) {
  constexpr double kUlps = 4;
  const double ulp = std::numeric_limits<float>::epsilon() * std::max(max_magnitude(exact), terms);
  const double error = max_error(got, exact), plain = max_error(rounded, exact);
  INFO(what << ": error " << error << ", error of the plain formula " << plain << ", ulp " << ulp);
  CHECK(error <= 2 * plain + kUlps * ulp);
}

// Checks `gradient` of the fp64 function f (Values -> double) against central differences around x. Differences of
// fp64 values at h = 1e-5 are good to about 1e-10 of the function's own size, so 1e-7 leaves room and still catches any
// wrong term.
template <class F>
void check_slope(const char* what, const F& f, Values x, const Values& gradient) {
  REQUIRE(x.size() == gradient.size());
  constexpr double h = 1e-5;
  Values slope(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const double middle = x[i];
    x[i] = middle + h;
    const double above = f(x);
    x[i] = middle - h;
    const double below = f(x);
    x[i] = middle;
    slope[i] = (above - below) / (2 * h);
  }
  INFO(what);
  CHECK(max_error(slope, gradient) <= 1e-7 * (1 + max_magnitude(gradient)));
}

// Sum of a * b: turns an output and the gradient that flows into it into the one number that check_slope needs.
inline double dot(const Values& a, const Values& b) {
  REQUIRE(a.size() == b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace nanovlm::testing
