// Numbers to compare, and the project's one rule of how close a kernel must come to the fp64 formula: no thresholds
// tuned by hand.
//
// A reference formula is evaluated twice: in fp64 (`exact`), and in plain fp32 with every rounding that the contract
// documents (`rounded`). A kernel passes if its error is at most twice that of `rounded`, plus a few fp32 ulp.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace nanovlm::testing {

// What references compute with and what comparisons read. f32, bf16 and i32 all fit a double exactly.
using Values = std::vector<double>;

// Largest |a - b|. Equal infinities and two NaN are no difference; anything else that is not finite is infinitely far,
// and so is another number of entries.
inline double max_error(const Values& a, const Values& b) {
  constexpr double kFar = std::numeric_limits<double>::infinity();
  if (a.size() != b.size()) return kFar;
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    const double error = std::abs(a[i] - b[i]);
    largest = std::isnan(error) ? kFar : std::max(largest, error);
  }
  return largest;
}

inline double max_magnitude(const Values& values) {
  double largest = 0;
  for (double value : values)
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  return largest;
}

struct Closeness {
  double error, plain, ulp;  // of the kernel; of the rounded formula; of fp32 at the largest magnitude
  double allowed() const { return 2 * plain + 4 * ulp; }
  // Where the formula itself is not finite and fp64 is, the case says nothing: it must not pass.
  bool close() const { return std::isfinite(allowed()) && error <= allowed(); }
};

// `terms`: the largest magnitude that was added up on the way to the result, where that exceeds the result itself
// (sums that cancel). An ulp is that of fp32 at the larger of the two.
inline Closeness closeness(const Values& got, const Values& exact, const Values& rounded, double terms = 0) {
  return {max_error(got, exact), max_error(rounded, exact),
          std::numeric_limits<float>::epsilon() * std::max(max_magnitude(exact), terms)};
}

}  // namespace nanovlm::testing
