#include "apps/common/device_option.h"

namespace nanovlm {

void DeviceOption::add_to(CommandLine& line) {
  line.option("--device", name, "where to compute").one_of({"cpu", "simt", "cuda"});
  line.option("--kernel", kernels, "on simt and cuda: the kernel of an operation that has several")
      .one_of(nanovlm::kernels::KernelChoices::all());
}

Device DeviceOption::open(std::vector<std::string>& warnings) const {
  if (!kernels.empty() && name == "cpu") throw UsageError("--kernel chooses among CUDA kernels: not with --device cpu");
  const std::string reason = Device::why_absent(name);
  if (name != "cuda" || reason.empty()) return Device::open(name, kernels);
  warnings.push_back("no cuda device: " + reason + "; running on cpu" +
                     (kernels.empty() ? "" : ", where --kernel has no effect"));
  return Device::open("cpu");
}

}  // namespace nanovlm
