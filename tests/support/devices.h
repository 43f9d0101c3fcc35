// Every device of this build that this machine can run; with `kernels` chosen, those that have a choice.
#pragma once
#include <string>
#include <vector>

#include "engine/device.h"
#include "tests/support/memory.h"

namespace nanovlm::testing {

inline std::vector<Device> devices(const std::vector<std::string>& kernels = {}) {
  std::vector<Device> all;
  for (const std::string name : {"cpu", "simt", "cuda"})
    if (is_tested(name.c_str()) && Device::why_absent(name).empty() && (kernels.empty() || name != "cpu"))
      all.push_back(Device::open(name, kernels));
  return all;
}

}  // namespace nanovlm::testing
