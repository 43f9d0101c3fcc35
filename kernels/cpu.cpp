#include "kernels/cpu.h"

namespace nanovlm::kernels {

CpuIsa best_cpu_isa() {
#if defined(NANOVLM_X86)
  // What CMakeLists.txt lets the compiler use for each.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
                    __builtin_cpu_supports("bmi2");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) return CpuIsa::avx512;
  if (avx2) return CpuIsa::avx2;
#endif
  return CpuIsa::baseline;
}

}  // namespace nanovlm::kernels
