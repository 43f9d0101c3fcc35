// Comparing with golden files.
#pragma once
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "engine/safetensors.h"
#include "tests/support/catch.h"

namespace nanovlm::testing {

inline std::string fixture(const std::string& path) { return std::string(NANOVLM_FIXTURES) + "/" + path; }

inline double largest(const std::vector<float>& x) {
  double most = 0;
  for (const float value : x) most = std::max<double>(most, std::abs(value));
  return most;
}

// The largest amount by which |a - b| exceeds absolute + relative * |b|; below 0 where every entry is within.
inline double excess(const std::vector<float>& a, const std::vector<float>& b, double absolute, double relative) {
  REQUIRE(a.size() == b.size());
  double most = -1e300;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return 1e300;
    most = std::max(most, std::abs(double{a[i]} - b[i]) - absolute - relative * std::abs(b[i]));
  }
  return most;
}

inline double l2(const std::vector<float>& x) {
  double sum = 0;
  for (const float value : x) sum += double{value} * value;
  return std::sqrt(sum);
}

}  // namespace nanovlm::testing
