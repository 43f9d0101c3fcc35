// A device: where tensors live and which kernels work on them.
//
// `Device` is a small handle that is passed along and stored in tensors; the context behind it owns everything that
// lasts as long as the device does (memory, the stream, settings). Two handles of one `open` share a context.
#pragma once
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "engine/allocator.h"
#include "engine/profile.h"
#include "kernels/cpu.h"
#include "kernels/types.h"
#include "kernels/variants.h"

namespace nanovlm {

namespace simt {
class Executor;
}
namespace cuda {
class Gpu;
}

enum class DeviceKind : uint8_t { cpu, simt, cuda };

struct DeviceContext {
  DeviceKind kind = DeviceKind::cpu;
  kernels::CpuIsa isa = kernels::CpuIsa::baseline;  // for kind cpu
  Stream stream;
  std::unique_ptr<simt::Executor> executor;  // for kind simt: runs the CUDA kernels; the stream leads to it
  std::unique_ptr<cuda::Gpu> gpu;            // for kind cuda; the stream leads to it
  CachingAllocator memory;
  std::unique_ptr<CachingAllocator> recorded_memory;   // what recorded launches use, and nothing else: see recording.h
  CachingAllocator* source = &memory;                  // where new storage comes from
  MemoryClass memory_class = MemoryClass::activation;  // what new storage is counted as; see MemoryScope
  bool launches_only = false;                          // see LaunchesOnly
  bool record_gradients = true;                        // see NoGrad in autograd.h
  int debug = 0;                                       // NANOVLM_DEBUG, 0 .. 4: docs/environment.md
  kernels::KernelChoices kernels;                      // of operations that have several
  Profile profile;                                     // of launches, from debug 2 on

  explicit DeviceContext(DeviceKind kind);
  CachingAllocator::Source segments() const;  // where either takes its memory from
  std::string memory_text() const;            // of both
  ~DeviceContext();                           // prints memory (from debug 1) and the profile (from debug 2) on stderr
};

class Device {
 public:
  // name: "cpu", "simt" or "cuda". Reads NANOVLM_DEBUG and NANOVLM_CPU (docs/environment.md).
  // Errors: an unknown name, a device that this build or this machine does not have.
  // kernels: "attention=fma", choices among the CUDA kernels of an operation (kernels/variants.h); not for the cpu.
  static Device open(const std::string& name, const std::vector<std::string>& kernels = {});
  // Why this build or this machine does not have the device, in a few words; empty where it does.
  static std::string why_absent(const std::string& name);

  DeviceContext& context() const { return *context_; }
  DeviceKind kind() const { return context_->kind; }
  bool is_host() const { return context_->kind != DeviceKind::cuda; }
  std::string name() const;  // "cpu (avx512, 2 threads)"

  // Between host memory and the device's, in order with its kernels. The host memory is free again on return.
  void upload(void* to, const void* from, int64_t bytes) const;
  void download(void* to, const void* from, int64_t bytes) const;
  // Returns once all work on the device is done. Throws where any of it failed.
  void synchronise() const;
  // Within the device's memory, in order with its kernels.
  void copy(void* to, const void* from, int64_t bytes) const;
  bool operator==(const Device& other) const { return context_ == other.context_; }

 private:
  void check_may(const char* operation, int64_t bytes) const;  // what LaunchesOnly forbids

  explicit Device(std::shared_ptr<DeviceContext> context) : context_(std::move(context)) {}
  std::shared_ptr<DeviceContext> context_;
};

// A field of the device's context has another value while this lives.
template <auto kField>
class ContextScope {
 public:
  using Value = std::remove_reference_t<decltype(std::declval<DeviceContext&>().*kField)>;

  ContextScope(Device device, Value value)
      : device_(std::move(device)), before_(std::exchange(device_.context().*kField, value)) {}
  ~ContextScope() { device_.context().*kField = before_; }
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;

 private:
  Device device_;
  Value before_;
};

// Counts storage allocated while it lives as the class it is given.
using MemoryScope = ContextScope<&DeviceContext::memory_class>;

// While it lives nothing may pass between host and device, nor may the host wait for the device: uploads, downloads and
// synchronise() throw. What runs under it can be recorded once and started again as a whole.
struct LaunchesOnly : ContextScope<&DeviceContext::launches_only> {
  explicit LaunchesOnly(Device device) : ContextScope(std::move(device), true) {}
};

// Calls f(backend tag, stream), which launches the kernel that `work` names. From NANOVLM_DEBUG=2 on it is timed.
template <class F>
void on(const Device& device, const Work& work, F&& f) {
  DeviceContext& context = device.context();
  const LaunchTimer timer(context.debug >= 2 ? &context.profile : nullptr, work);
#if defined(NANOVLM_SIMT_KERNELS)
  if (context.kind == DeviceKind::simt) return f(Simt{}, context.stream);
#endif
#if defined(NANOVLM_CUDA_KERNELS)
  if (context.kind == DeviceKind::cuda) return f(Cuda{}, context.stream);
#endif
  kernels::with_cpu(context.isa, [&](auto backend) { f(backend, context.stream); });
}

}  // namespace nanovlm
