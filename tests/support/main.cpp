#define CATCH_CONFIG_RUNNER
#include <iostream>

#include "engine/device.h"
#include "tests/support/catch.h"
#include "tests/support/memory.h"
#include "tests/support/skip.h"

int main(int argc, char** argv) {
  const std::string reason = nanovlm::Device::why_absent("cuda");
  if (!nanovlm::testing::is_tested("cpu") && nanovlm::testing::is_tested("cuda") && !reason.empty()) {
    std::cout << "skipped: no cuda device: " << reason << std::endl;
    return nanovlm::testing::kSkipped;
  }
  // Catch2 returns the number of failures, which may be any.
  if (Catch::Session().run(argc, argv) != 0) return 1;
  return nanovlm::testing::something_skipped ? nanovlm::testing::kSkipped : 0;
}
