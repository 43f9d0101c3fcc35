// What a test needs and this build or machine lacks: ctest then reports the whole program as skipped, not as passed,
// unless something failed.
#pragma once
#include <string>

#include "tests/support/catch.h"

namespace nanovlm::testing {

inline constexpr int kSkipped = 77;  // what ctest is told to take for a skipped test
inline bool something_skipped = false;

inline void note_skipped(const std::string& why) {
  WARN("skipped: " << why);
  something_skipped = true;
}

}  // namespace nanovlm::testing
