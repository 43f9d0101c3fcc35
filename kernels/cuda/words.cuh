// CUDA's own words for kernel files compiled by nvcc, and the few that kernels/simt/words.h adds to them. Included by
// kernels/device.cuh only; this is the one place with <<<>>>.
#pragma once
#include <cuda_runtime.h>

#include "kernels/cuda/gpu.h"
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

// Bytes of shared memory that a block may have, static and dynamic.
inline int64_t shared_limit(const char* name, Stream stream) { return cuda::Gpu::of(stream, name).shared_limit(); }

template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), const LaunchShape& shape, const A&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: one argument a parameter of the kernel");
  check_shape(name, shape);
  cuda::Gpu& gpu = cuda::Gpu::of(shape.stream, name);
  gpu.allow_shared_memory(reinterpret_cast<const void*>(kernel), name, shape);
  const auto extent = [](const Extent& e) {
    return dim3(static_cast<unsigned>(e.x), static_cast<unsigned>(e.y), static_cast<unsigned>(e.z));
  };
  kernel<<<extent(shape.grid), extent(shape.block), static_cast<size_t>(shape.shared_bytes), gpu.compute_stream()>>>(
      kernel_argument<P>(name, arguments)...);
  gpu.launched(name, shape);
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
