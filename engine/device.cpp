#include "engine/device.h"

#include <omp.h>

#include <cstdlib>
#include <iostream>

#include "engine/error.h"
#if defined(NANOVLM_SIMT_KERNELS)
#include "kernels/simt/executor.h"
#else
namespace nanovlm::simt {
class Executor {};
}  // namespace nanovlm::simt
#endif

namespace nanovlm {
namespace {

int debug_level() {
  const char* value = std::getenv("NANOVLM_DEBUG");
  if (!value || !*value) return 0;
  const std::string level = value;
  check(level.size() == 1 && level[0] >= '0' && level[0] <= '4', "NANOVLM_DEBUG is \"", level,
        "\", but must be one digit, 0 to 4");
  return level[0] - '0';
}

kernels::CpuIsa cpu_isa() {
  const kernels::CpuIsa best = kernels::best_cpu_isa();
  const char* value = std::getenv("NANOVLM_CPU");
  if (!value || !*value) return best;
  for (const auto isa : {kernels::CpuIsa::baseline, kernels::CpuIsa::avx2, kernels::CpuIsa::avx512})
    if (value == std::string(name_of(isa))) {
      check(isa <= best, "NANOVLM_CPU is ", value, ", but this processor and build go up to ", name_of(best));
      return isa;
    }
  fail("NANOVLM_CPU is \"", value, "\", but must be baseline, avx2 or avx512");
}

std::unique_ptr<simt::Executor> executor_for([[maybe_unused]] DeviceKind kind) {
#if defined(NANOVLM_SIMT_KERNELS)
  if (kind == DeviceKind::simt)
    return std::make_unique<simt::Executor>(simt::Options{.workers = omp_get_max_threads()});
#endif
  return nullptr;
}

// Segments of the simt device come from the executor, which puts red zones round them.
CachingAllocator::Source memory_of([[maybe_unused]] simt::Executor* executor) {
#if defined(NANOVLM_SIMT_KERNELS)
  if (executor)
    return {[executor](size_t bytes) { return executor->allocate(static_cast<int64_t>(bytes)); },
            [executor](void* p, size_t) { executor->free(p); }};
#endif
  return CachingAllocator::host_memory();
}

}  // namespace

DeviceContext::DeviceContext(DeviceKind kind)
    : kind(kind),
      isa(cpu_isa()),
      stream{nullptr},
      executor(executor_for(kind)),
      memory(memory_of(executor.get())),
      debug(debug_level()) {
#if defined(NANOVLM_SIMT_KERNELS)
  if (executor) stream = executor->stream();
#endif
}

DeviceContext::~DeviceContext() {
  if (debug >= 1 && memory.report().peak > 0) std::cerr << "memory: " << memory.report().text() << '\n';
  if (debug >= 2 && !profile.empty()) std::cerr << profile.table();
}

Device Device::open(const std::string& name) {
  if (name == "cpu") return Device(std::make_shared<DeviceContext>(DeviceKind::cpu));
#if defined(NANOVLM_SIMT_KERNELS)
  if (name == "simt") return Device(std::make_shared<DeviceContext>(DeviceKind::simt));
#endif
  check(name != "simt" && name != "cuda", "device: this build has no ", name, " device");
  fail("device: \"", name, "\" is unknown; expected cpu, simt or cuda");
}

std::string Device::name() const {
  if (kind() == DeviceKind::simt) return "simt (the CUDA kernels, executed and checked on the host)";
  if (kind() == DeviceKind::cuda) return "cuda";
  return text("cpu (", name_of(context_->isa), ", ", omp_get_max_threads(), " threads)");
}

}  // namespace nanovlm
