// How the stand-in GPU starts a kernel: its stream's queue gets it. Included by kernels/device.cuh only.
#pragma once
#include <memory>

#include "kernels/cuda/gpu.h"
#include "kernels/launch.h"
#include "kernels/simt/call.h"
#include "kernels/simt/executor.h"
#include "kernels/stand_in/runtime.h"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

inline int64_t shared_limit(const char* name, Stream stream) { return cuda::Gpu::of(stream, name).shared_limit(); }

template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), const LaunchShape& shape, const A&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: one argument a parameter of the kernel");
  check_shape(name, shape);
  cuda::Gpu& gpu = cuda::Gpu::of(shape.stream, name);
  const void* const function = reinterpret_cast<const void*>(kernel);
  gpu.allow_shared_memory(function, name, shape);
  using Call = simt::Call<P...>;
  const auto call = std::make_shared<const Call>(Call{kernel, {kernel_argument<P>(name, arguments)...}});
  stand_in::enqueue(gpu.compute_stream(), [=](simt::Executor& executor) {
    executor.run({name, shape, Call::thread_body, call.get(), false, function});
  });
  gpu.launched(name, shape);
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
