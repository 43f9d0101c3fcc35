// Runs a check on every backend of this build that this machine can execute, at the level of kernel contracts.
#pragma once
#include <string>
#include <type_traits>

#include "kernels/cpu.h"
#include "tests/support/catch.h"
#include "tests/support/memory.h"
#if defined(NANOVLM_CUDA_KERNELS)
#include "kernels/cuda/gpu.h"
#endif
#if defined(NANOVLM_SIMT_KERNELS)
#include "tests/support/simt_runs.h"
#endif

namespace nanovlm::testing {

#if defined(NANOVLM_CUDA_KERNELS)
// This machine's GPU, which waits for every launch; null where there is none. Never closed: at the end of a program the
// libraries that it has loaded end before it.
inline cuda::Gpu* gpu() {
  static cuda::Gpu* const it = cuda::why_absent().empty() ? new cuda::Gpu({.synchronous = true}) : nullptr;
  return it;
}

// Whether it has the instructions of kernels/hopper.cuh.
inline bool gpu_is_hopper() { return gpu()->name().find("compute capability 9.0") != std::string::npos; }
#endif

// Calls f(tag) or f(tag, stream) for each CPU backend; and, where f takes a stream, for simt in all of simt_runs(), and
// for cuda where there is a GPU. Failures name the backend.
template <class F>
void for_each_backend(const F& f) {
  const auto call = [&](auto backend, [[maybe_unused]] Stream stream) {
    if constexpr (std::is_invocable_v<F, decltype(backend), Stream>)
      f(backend, stream);
    else
      f(backend);
  };
#if !defined(NANOVLM_SIMT_INSTRUMENTED)  // that build is about the kernels of simt
  for (int isa = 0; is_tested("cpu") && isa <= static_cast<int>(kernels::best_cpu_isa()); ++isa)
    kernels::with_cpu(static_cast<kernels::CpuIsa>(isa), [&](auto backend) {
      INFO("backend: cpu, " << kernels::name_of(static_cast<kernels::CpuIsa>(isa)));
      call(backend, Stream{});
    });
#endif
#if defined(NANOVLM_SIMT_KERNELS)
  if constexpr (std::is_invocable_v<F, Simt, Stream>)
    for (const simt::Options& options : simt_runs()) {
      if (!is_tested("simt")) break;
      INFO("backend: " << name_of(options));
      simt::Executor executor(options);
      call(Simt{}, executor.stream());
    }
#endif
#if defined(NANOVLM_CUDA_KERNELS) && !defined(NANOVLM_SIMT_INSTRUMENTED)
  if constexpr (std::is_invocable_v<F, Cuda, Stream>)
    if (is_tested("cuda") && gpu()) {
      INFO("backend: cuda, " << gpu()->name());
      call(Cuda{}, gpu()->stream());
    }
#endif
}

}  // namespace nanovlm::testing
