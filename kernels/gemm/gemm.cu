// The matrix product of bf16 on tensor cores: tile.cuh, with c as the epilogue.
#include "kernels/gemm/gemm.h"

#include "kernels/gemm/store.cuh"
#include "kernels/gemm/tile.cuh"

namespace nanovlm::kernels {

template <>
void gemm(ThisBackend, const Matmul& m, Stream stream) {
  check_gemm("gemm", m);
  if (m.M == 0 || m.N == 0) return;
  const StoreProduct epilogue(m);
  const auto multiply = [&]<bool kTransposeA, bool kTransposeB>() {
    launch_gemm<kTransposeA, kTransposeB>("gemm", static_cast<const bf16*>(m.a), static_cast<const bf16*>(m.b),
                                          epilogue, m.M, m.N, m.K, stream);
  };
  if (m.transpose_a)
    m.transpose_b ? multiply.operator()<true, true>() : multiply.operator()<true, false>();
  else
    m.transpose_b ? multiply.operator()<false, true>() : multiply.operator()<false, false>();
}

}  // namespace nanovlm::kernels
