// How a kernel is started on the cuda device, by whatever start() the file that includes this has declared: the one of
// words.cuh, or the stand-in's (kernels/stand_in/launch.h).
#pragma once
#include "kernels/cuda/gpu.h"
#include "kernels/launch.h"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

// Bytes of shared memory that a block may have, static and dynamic.
inline int64_t shared_limit(const char* name, Stream stream) { return cuda::Gpu::of(stream, name).shared_limit(); }

template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), const LaunchShape& shape, const A&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: one argument a parameter of the kernel");
  check_shape(name, shape);
  cuda::Gpu& gpu = cuda::Gpu::of(shape.stream, name);
  const void* const address = reinterpret_cast<const void*>(kernel);
  gpu.allow_shared_memory(address, name, shape);
  start(gpu.compute_stream(), name, kernel, shape, kernel_argument<P>(name, arguments)...);
  gpu.launched(name, address, shape);
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
