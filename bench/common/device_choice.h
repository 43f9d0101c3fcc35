// --device and --kernel of a bench.
#pragma once
#include <string>
#include <vector>

#include "engine/device.h"

namespace CLI {
class App;
}

namespace nanovlm::bench {

struct DeviceChoice {
  std::string device;                // empty: the first of cuda, simt and cpu that this build and machine have
  std::vector<std::string> kernels;  // "attention=fma"

  // With `device` as it stands for the default.
  void add_to(CLI::App& app);
  Device open() const;
};

}  // namespace nanovlm::bench
