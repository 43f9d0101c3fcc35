// CUDA's own words for kernel files compiled by nvcc, and the few that kernels/simt/words.h adds to them. Included by
// kernels/device.cuh only; this is the one place with <<<>>>.
#pragma once
#include <stdexcept>
#include <string>

#include <cuda_runtime.h>

#include "kernels/launch.h"

#define GPU_SHARED(type, name, extents) __shared__ __align__(16) type name extents
#define GPU_SHARED_DYNAMIC(type, name)                                    \
  extern __shared__ __align__(16) unsigned char nanovlm_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(nanovlm_dynamic_shared)

namespace nanovlm::kernels {

// A GPU does not record source lines.
struct Where {
  static constexpr NANOVLM_HOST_DEVICE Where here() { return {}; }
};

__device__ inline void block_barrier(Where = {}) { __syncthreads(); }
template <class T>
__device__ T shfl_xor(T value, int lanes, Where = {}) {
  return __shfl_xor_sync(0xffffffff, value, lanes);
}

inline std::string text(const Extent& e) {
  return std::to_string(e.x) + "x" + std::to_string(e.y) + "x" + std::to_string(e.z);
}

inline void check_cuda(const char* name, const LaunchShape& shape, cudaError_t error) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string(name) + ": grid " + text(shape.grid) + ", block " + text(shape.block) + ", " +
                             std::to_string(shape.shared_bytes) +
                             " bytes of dynamic shared memory: CUDA says: " + cudaGetErrorString(error));
}

template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), const LaunchShape& shape, const A&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: one argument a parameter of the kernel");
  check_shape(name, shape);
  constexpr int64_t kUnasked = 48 * 1024;  // more dynamic shared memory has to be asked for
  if (shape.shared_bytes > kUnasked)
    check_cuda(name, shape,
               cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shape.shared_bytes)));
  const auto extent = [](const Extent& e) {
    return dim3(static_cast<unsigned>(e.x), static_cast<unsigned>(e.y), static_cast<unsigned>(e.z));
  };
  kernel<<<extent(shape.grid), extent(shape.block), static_cast<size_t>(shape.shared_bytes),
           static_cast<cudaStream_t>(shape.stream.handle)>>>(kernel_argument<P>(name, arguments)...);
  check_cuda(name, shape, cudaGetLastError());
}

// Device memory for the kernels of one call, freed in the stream's order once they have run.
class Scratch {
 public:
  Scratch(const char* name, Stream stream, int64_t bytes) : stream_(static_cast<cudaStream_t>(stream.handle)) {
    const cudaError_t error = cudaMallocAsync(&data_, static_cast<size_t>(bytes), stream_);
    if (error != cudaSuccess)
      throw std::runtime_error(std::string(name) + ": " + std::to_string(bytes) +
                               " bytes of scratch memory: CUDA says: " + cudaGetErrorString(error));
  }
  ~Scratch() { cudaFreeAsync(data_, stream_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* floats() { return static_cast<float*>(data_); }

 private:
  cudaStream_t stream_;
  void* data_ = nullptr;
};

}  // namespace nanovlm::kernels
