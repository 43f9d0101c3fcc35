#include "engine/device.h"

#include <omp.h>

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <new>

#include "engine/error.h"
#if defined(NANOVLM_SIMT_KERNELS)
#include "kernels/simt/executor.h"
#else
namespace nanovlm::simt {
class Executor {};
}  // namespace nanovlm::simt
#endif
#if defined(NANOVLM_CUDA_KERNELS)
#include "kernels/cuda/gpu.h"
#else
namespace nanovlm::cuda {
class Gpu {};
}  // namespace nanovlm::cuda
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

// Of a tensor without entries either address may be null, which memcpy must not be given.
void copy_on_host(void* to, const void* from, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

// From NANOVLM_DEBUG=2 on every launch is waited for: the profile's times are its own, and a fault is named by kernel.
std::unique_ptr<cuda::Gpu> gpu_for([[maybe_unused]] DeviceKind kind) {
#if defined(NANOVLM_CUDA_KERNELS)
  if (kind == DeviceKind::cuda) return std::make_unique<cuda::Gpu>(cuda::Options{.synchronous = debug_level() >= 2});
#endif
  return nullptr;
}

}  // namespace

DeviceContext::DeviceContext(DeviceKind kind)
    : kind(kind),
      isa(cpu_isa()),
      stream{nullptr},
      executor(executor_for(kind)),
      gpu(gpu_for(kind)),
      memory(segments()),
      debug(debug_level()) {
#if defined(NANOVLM_SIMT_KERNELS)
  if (executor) stream = executor->stream();
#endif
#if defined(NANOVLM_CUDA_KERNELS)
  if (!gpu) return;
  stream = gpu->stream();
  // A call's scratch memory comes and goes while `source` is the same.
  gpu->take_scratch = [this](size_t bytes) { return source->allocate(bytes, MemoryClass::workspace); };
  gpu->give_back_scratch = [this](void* p) { source->free(p); };
#endif
}

// Segments of the simt device come from the executor, whose instrumented build refuses accesses outside of them.
CachingAllocator::Source DeviceContext::segments() const {
#if defined(NANOVLM_SIMT_KERNELS)
  if (simt::Executor* const from = executor.get())
    return {[from](size_t bytes) -> void* {
              try {
                return from->allocate(static_cast<int64_t>(bytes));
              } catch (const std::bad_alloc&) {
                return nullptr;  // the allocator says what was asked and who has the rest
              }
            },
            [from](void* p, size_t) { from->free(p); }, [from] { return from->free_bytes(); }};
#endif
#if defined(NANOVLM_CUDA_KERNELS)
  // A block may be used again while kernels that were launched before still run: one stream keeps them in order.
  if (cuda::Gpu* const from = gpu.get())
    return {[from](size_t bytes) { return from->take(bytes); }, [from](void* p, size_t) { from->give_back(p); },
            [from] { return from->free_bytes(); }};
#endif
  return CachingAllocator::host_memory();
}

std::string DeviceContext::memory_text() const {
  return memory.report().text() + (recorded_memory ? "; recorded launches: " + recorded_memory->report().text() : "");
}

DeviceContext::~DeviceContext() {
  if (debug >= 1 && memory.report().peak > 0) std::cerr << "memory: " << memory_text() << '\n';
  if (debug >= 2 && !profile.empty()) std::cerr << profile.table();
}

Device Device::open(const std::string& name, const std::vector<std::string>& kernels) {
  check(name == "cpu" || name == "simt" || name == "cuda", "device: \"", name,
        "\" is unknown; expected cpu, simt or cuda");
  const std::string reason = why_absent(name);
  check(reason.empty(), "device: no ", name, " device: ", reason);
  check(kernels.empty() || name != "cpu", "kernel: ", kernels.empty() ? "" : kernels[0],
        ": the cpu device has one kernel an operation");
  auto context = std::make_shared<DeviceContext>(name == "cpu"    ? DeviceKind::cpu
                                                 : name == "simt" ? DeviceKind::simt
                                                                  : DeviceKind::cuda);
  for (const std::string& choice : kernels) context->kernels.choose(choice);
  return Device(std::move(context));
}

std::string Device::why_absent(const std::string& name) {
  if (name == "cuda") {
#if defined(NANOVLM_CUDA_KERNELS)
    return cuda::why_absent();
#else
    return "this build was made without CUDA";
#endif
  }
#if !defined(NANOVLM_SIMT_KERNELS)
  if (name == "simt") return "this build was made without it";
#endif
  return "";
}

std::string Device::name() const {
  if (kind() == DeviceKind::simt) return "simt (the CUDA kernels, executed and checked on the host)";
#if defined(NANOVLM_CUDA_KERNELS)
  if (kind() == DeviceKind::cuda) return "cuda (" + context_->gpu->name() + ")";
#endif
  return text("cpu (", name_of(context_->isa), ", ", omp_get_max_threads(), " threads)");
}

void Device::check_may(const char* operation, int64_t bytes) const {
  check(!context_->launches_only, operation, " of ", bytes, " bytes where the device is given launches only");
}

void Device::upload(void* to, const void* from, int64_t bytes) const {
  check_may("upload", bytes);
#if defined(NANOVLM_CUDA_KERNELS)
  if (kind() == DeviceKind::cuda) return context_->gpu->upload(to, from, static_cast<size_t>(bytes));
#endif
  copy_on_host(to, from, bytes);
}

void Device::download(void* to, const void* from, int64_t bytes) const {
  check_may("download", bytes);
#if defined(NANOVLM_CUDA_KERNELS)
  if (kind() == DeviceKind::cuda) return context_->gpu->download(to, from, static_cast<size_t>(bytes));
#endif
  copy_on_host(to, from, bytes);
}

void Device::copy(void* to, const void* from, int64_t bytes) const {
#if defined(NANOVLM_CUDA_KERNELS)
  if (kind() == DeviceKind::cuda) return context_->gpu->copy(to, from, static_cast<size_t>(bytes));
#endif
  copy_on_host(to, from, bytes);
}

void Device::synchronise() const {
  check(!context_->launches_only, "synchronise where the device is given launches only");
#if defined(NANOVLM_CUDA_KERNELS)
  if (kind() == DeviceKind::cuda) context_->gpu->synchronise("synchronise");
#endif
}

}  // namespace nanovlm
