// A GPU's clocks while something is measured, and what held them down: sampled through NVML, which belongs to the
// driver and is looked for at run time. On other devices, and without the library, there is nothing to say. No bench
// sets clocks.
#pragma once
#include <memory>

#include "bench/common/harness.h"
#include "engine/device.h"

namespace nanovlm::bench {

class GpuClocks {
 public:
  explicit GpuClocks(const Device& device);  // samples from now on
  ~GpuClocks();
  GpuClocks(const GpuClocks&) = delete;
  GpuClocks& operator=(const GpuClocks&) = delete;

  // Columns sm_mhz_min, sm_mhz_max, mem_mhz and throttle ("none", or "power cap, heat"); none without a GPU.
  Report::Row stop();

 private:
  class Sampler;
  std::unique_ptr<Sampler> sampler_;
};

}  // namespace nanovlm::bench
