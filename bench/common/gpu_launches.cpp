#include "bench/common/gpu_launches.h"

#if defined(NANOVLM_CUDA_KERNELS)
#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/cuda/gpu.h"
#endif

namespace nanovlm::bench {

#if defined(NANOVLM_CUDA_KERNELS)
namespace {

// Listens to a GPU while it lives.
class Listener {
 public:
  explicit Listener(cuda::Gpu& gpu) : gpu_(gpu), take_(gpu.take_scratch) {
    gpu_.on_launch = [this](const cuda::Launch& launch) { launches.push_back(launch); };
    gpu_.take_scratch = [this](size_t bytes) { return scratch_bytes += bytes, take_(bytes); };
  }
  ~Listener() { gpu_.on_launch = nullptr, gpu_.take_scratch = std::move(take_); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  std::vector<cuda::Launch> launches;
  size_t scratch_bytes = 0;

 private:
  cuda::Gpu& gpu_;
  std::function<void*(size_t)> take_;
};

}  // namespace

Report::Row launch_columns(const Device& device, const std::function<void()>& call) {
  if (device.kind() != DeviceKind::cuda) {
    call();
    return {};
  }
  Listener heard(*device.context().gpu);
  call();
  int64_t registers = 0, shared_bytes = 0;
  for (const cuda::Launch& launch : heard.launches) {
    if (!launch.kernel) continue;
    cudaFuncAttributes needs{};
    cuda::check(cudaFuncGetAttributes(&needs, launch.kernel), "bench: what a kernel needs");
    registers = std::max<int64_t>(registers, needs.numRegs);
    shared_bytes = std::max(shared_bytes, static_cast<int64_t>(needs.sharedSizeBytes) + launch.shared_bytes);
  }
  return {{"kernels", value(static_cast<int64_t>(heard.launches.size()))},
          {"regs", value(registers)},
          {"smem_kb", value(static_cast<double>(shared_bytes) / 1024, 1)},
          {"workspace_mb", value(static_cast<double>(heard.scratch_bytes) * 1e-6, 3)}};
}
#else
Report::Row launch_columns(const Device&, const std::function<void()>& call) {
  call();
  return {};
}
#endif

}  // namespace nanovlm::bench
