// Every device of this build that this machine can run.
#pragma once
#include <vector>

#include "engine/device.h"
#include "tests/support/memory.h"

namespace nanovlm::testing {

inline std::vector<Device> devices() {
  std::vector<Device> all;
  for (const char* name : {"cpu", "simt", "cuda"})
    if (is_tested(name) && Device::why_absent(name).empty()) all.push_back(Device::open(name));
  return all;
}

}  // namespace nanovlm::testing
