// The rule of tests/support/values.h as checks of a test.
#pragma once
#include "tests/support/buffer.h"

namespace nanovlm::testing {

inline void check_close(const char* what, const Values& got, const Values& exact, const Values& rounded,
                        double terms = 0) {
  const Closeness found = closeness(got, exact, rounded, terms);
  INFO(what << ": error " << found.error << ", error of the plain formula " << found.plain << ", ulp " << found.ulp);
  CHECK(found.close());
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
