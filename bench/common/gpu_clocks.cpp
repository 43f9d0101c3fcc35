#include "bench/common/gpu_clocks.h"

#if defined(NANOVLM_CUDA_KERNELS)
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stop_token>
#include <thread>

#include "kernels/cuda/check.h"
#endif

namespace nanovlm::bench {

#if defined(NANOVLM_CUDA_KERNELS)
namespace {

// The few functions of NVML that are called, as its API reference declares them. The header is not part of the toolkit.
class Nvml {
 public:
  explicit Nvml(const std::string& pci_bus) {
    void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);  // never closed: the driver's
    if (!library) return;
    int (*init)() = nullptr;
    int (*by_bus)(const char*, void**) = nullptr;
    if (!find(library, "nvmlInit_v2", init) || !find(library, "nvmlDeviceGetHandleByPciBusId_v2", by_bus) ||
        !find(library, "nvmlDeviceGetClockInfo", clock_) ||
        !find(library, "nvmlDeviceGetCurrentClocksThrottleReasons", reasons_))
      return;
    if (init() != 0 || by_bus(pci_bus.c_str(), &device_) != 0) device_ = nullptr;
  }

  bool found() const { return device_ != nullptr; }
  unsigned sm_mhz() const { return clock(1); }      // NVML_CLOCK_SM
  unsigned memory_mhz() const { return clock(2); }  // NVML_CLOCK_MEM
  uint64_t reasons() const {
    unsigned long long bits = 0;
    return reasons_(device_, &bits) == 0 ? bits : 0;
  }

 private:
  template <class F>
  static bool find(void* library, const char* name, F& function) {
    function = reinterpret_cast<F>(dlsym(library, name));
    return function != nullptr;
  }
  unsigned clock(int which) const {
    unsigned mhz = 0;
    return clock_(device_, which, &mhz) == 0 ? mhz : 0;
  }

  void* device_ = nullptr;
  int (*clock_)(void*, int, unsigned*) = nullptr;
  int (*reasons_)(void*, unsigned long long*) = nullptr;
};

// nvmlClocksEventReasons; an idle GPU and clocks that somebody has set are no throttling.
std::string text_of_reasons(uint64_t bits) {
  constexpr std::pair<uint64_t, const char*> kReasons[] = {
      {0x04, "power cap"}, {0x08 | 0x80, "hardware slowdown"}, {0x10, "sync boost"}, {0x20 | 0x40, "heat"}};
  std::string text;
  for (const auto& [mask, name] : kReasons)
    if (bits & mask) text += (text.empty() ? "" : ", ") + std::string(name);
  return text.empty() ? "none" : text;
}

std::string pci_bus_of_this_gpu() {
  char bus[32] = {};
  int device = 0;
  cuda::check(cudaGetDevice(&device), "bench: the GPU's number");
  cuda::check(cudaDeviceGetPCIBusId(bus, sizeof bus, device), "bench: the GPU's place");
  return bus;
}

}  // namespace

class GpuClocks::Sampler {
 public:
  explicit Sampler(const std::string& pci_bus) : nvml_(pci_bus) {
    if (nvml_.found()) thread_ = std::jthread([this](std::stop_token stop) { run(stop); });
  }

  Report::Row stop() {
    if (!nvml_.found()) return {};
    thread_.request_stop();
    if (thread_.joinable()) thread_.join();
    return {{"sm_mhz_min", value(int64_t{least_})},
            {"sm_mhz_max", value(int64_t{most_})},
            {"mem_mhz", value(int64_t{memory_})},
            {"throttle", value(text_of_reasons(reasons_))}};
  }

 private:
  void run(const std::stop_token& stop) {
    constexpr std::chrono::milliseconds kBetween{20};
    std::mutex mutex;
    std::condition_variable_any changed;
    std::unique_lock lock(mutex);
    do {
      const unsigned sm = nvml_.sm_mhz();
      least_ = most_ == 0 ? sm : std::min(least_, sm), most_ = std::max(most_, sm);
      memory_ = std::max(memory_, nvml_.memory_mhz());
      reasons_ |= nvml_.reasons();
      changed.wait_for(lock, stop, kBetween, [] { return false; });
    } while (!stop.stop_requested());
  }

  Nvml nvml_;
  unsigned least_ = 0, most_ = 0, memory_ = 0;  // read once the thread has ended
  uint64_t reasons_ = 0;
  std::jthread thread_;
};

GpuClocks::GpuClocks(const Device& device) {
  if (device.kind() == DeviceKind::cuda) sampler_ = std::make_unique<Sampler>(pci_bus_of_this_gpu());
}
Report::Row GpuClocks::stop() { return sampler_ ? sampler_->stop() : Report::Row{}; }
#else
class GpuClocks::Sampler {};

GpuClocks::GpuClocks(const Device&) {}
Report::Row GpuClocks::stop() { return {}; }
#endif

GpuClocks::~GpuClocks() = default;

}  // namespace nanovlm::bench
