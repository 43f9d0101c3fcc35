// The device that a program computes on, as its command line says it.
#pragma once
#include <string>
#include <vector>

#include "apps/common/cli.h"
#include "engine/device.h"

namespace nanovlm {

struct DeviceOption {
  std::string name = "cpu";
  std::vector<std::string> kernels;  // "attention=fma"

  void add_to(CommandLine& line);  // --device, --kernel

  // A machine or build without a GPU gets the cpu in place of cuda, and a warning that says why.
  Device open(std::vector<std::string>& warnings) const;
};

}  // namespace nanovlm
