// CUDA's own words for kernel files compiled by nvcc, and the few that kernels/simt/words.h adds to them. Included by
// kernels/device.cuh only; this is the one place with <<<>>>.
#pragma once
#include <cuda_runtime.h>

#include "kernels/launch.h"

#define GPU_SHARED(type, name, extents) __shared__ __align__(16) type name extents
#define GPU_SHARED_DYNAMIC(type, name)                                    \
  extern __shared__ __align__(16) unsigned char nanovlm_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(nanovlm_dynamic_shared)

namespace nanovlm::kernels::inline NANOVLM_WORDS {

// A GPU does not record source lines.
struct Where {
  static constexpr NANOVLM_HOST_DEVICE Where here() { return {}; }
};

__device__ inline void block_barrier(Where = {}) { __syncthreads(); }
template <class T>
__device__ T shfl_xor(T value, int lanes, Where = {}) {
  return __shfl_xor_sync(0xffffffff, value, lanes);
}

template <class... P>
void start(CUstream_st* stream, const char*, void (*kernel)(P...), const LaunchShape& shape, const P&... arguments) {
  const auto extent = [](const Extent& e) {
    return dim3(static_cast<unsigned>(e.x), static_cast<unsigned>(e.y), static_cast<unsigned>(e.z));
  };
  kernel<<<extent(shape.grid), extent(shape.block), static_cast<size_t>(shape.shared_bytes), stream>>>(arguments...);
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS

#include "kernels/cuda/launch.h"
