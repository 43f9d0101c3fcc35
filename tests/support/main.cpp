#define CATCH_CONFIG_RUNNER
#include <iostream>

#include "engine/device.h"
#include "tests/support/catch.h"
#include "tests/support/memory.h"

int main(int argc, char** argv) {
  const std::string reason = nanovlm::Device::why_absent("cuda");
  if (!nanovlm::testing::is_tested("cpu") && nanovlm::testing::is_tested("cuda") && !reason.empty()) {
    std::cout << "skipped: no cuda device: " << reason << std::endl;
    return 77;  // what ctest is told to take for a skipped test
  }
  return Catch::Session().run(argc, argv);
}
