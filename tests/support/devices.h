// Every device of this build that this machine can run.
#pragma once
#include <vector>

#include "engine/device.h"

namespace nanovlm::testing {

inline std::vector<Device> devices() {
  std::vector<Device> all = {Device::open("cpu")};
#if defined(NANOVLM_SIMT_KERNELS)
  all.push_back(Device::open("simt"));
#endif
  return all;
}

}  // namespace nanovlm::testing
