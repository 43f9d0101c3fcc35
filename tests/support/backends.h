// Runs a check on every backend of this build that this machine can execute, at the level of kernel contracts.
#pragma once
#include <catch2/catch.hpp>

#include "kernels/cpu.h"

namespace nanovlm::testing {

// Calls f(tag) for each CPU backend, and for simt where it is built; failures name the backend.
template <class F>
void for_each_backend(const F& f) {
  for (int isa = 0; isa <= static_cast<int>(kernels::best_cpu_isa()); ++isa)
    kernels::with_cpu(static_cast<kernels::CpuIsa>(isa), [&](auto backend) {
      INFO("backend: cpu, " << kernels::name_of(static_cast<kernels::CpuIsa>(isa)));
      f(backend);
    });
#if defined(NANOVLM_SIMT)
  {
    INFO("backend: simt");
    f(Simt{});
  }
#endif
}

}  // namespace nanovlm::testing
