// Which of the CPU backends this processor can run.
#pragma once
#include "kernels/types.h"

namespace nanovlm::kernels {

enum class CpuIsa { baseline, avx2, avx512 };

// The widest instruction set that was built and that this processor has.
CpuIsa best_cpu_isa();

constexpr const char* name_of(CpuIsa isa) {
  return isa == CpuIsa::avx512 ? "avx512" : isa == CpuIsa::avx2 ? "avx2" : "baseline";
}

// Calls f with the backend tag of `isa`.
template <class F>
decltype(auto) with_cpu(CpuIsa isa, F&& f) {
#if defined(NANOVLM_X86)
  if (isa == CpuIsa::avx512) return f(CpuAvx512{});
  if (isa == CpuIsa::avx2) return f(CpuAvx2{});
#endif
  (void)isa;
  return f(CpuBaseline{});
}

}  // namespace nanovlm::kernels
