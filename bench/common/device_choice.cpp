#include "bench/common/device_choice.h"

#include <CLI/CLI.hpp>

namespace nanovlm::bench {

void DeviceChoice::add_to(CLI::App& app) {
  const std::string otherwise = device.empty() ? "; by default the first of them that is there" : "; default " + device;
  app.add_option("--device", device, "cuda, simt or cpu" + otherwise)->check(CLI::IsMember({"cuda", "simt", "cpu"}));
  app.add_option("--kernel", kernels, "on simt and cuda: the kernel of an operation that has several")
      ->check(CLI::IsMember(kernels::KernelChoices::all()));
}

Device DeviceChoice::open() const {
  if (!device.empty()) return Device::open(device, kernels);
  for (const char* each : {"cuda", "simt"})
    if (Device::why_absent(each).empty()) return Device::open(each, kernels);
  return Device::open("cpu", kernels);
}

}  // namespace nanovlm::bench
