// How the simt device starts a kernel: at once, on the executor that the stream leads to. Included by
// kernels/device.cuh only.
#pragma once
#include "kernels/launch.h"
#include "kernels/simt/call.h"
#include "kernels/simt/executor.h"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), const LaunchShape& shape, const A&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: one argument a parameter of the kernel");
  check_shape(name, shape);
  const simt::Call<P...> call{kernel, {kernel_argument<P>(name, arguments)...}};
#if defined(NANOVLM_SIMT_INSTRUMENTED)
  constexpr bool instrumented = true;
#else
  constexpr bool instrumented = false;
#endif
  simt::Executor::of(shape.stream, name)
      .run({name, shape, simt::Call<P...>::thread_body, &call, instrumented, reinterpret_cast<const void*>(kernel)});
}

// Bytes of shared memory that a block may have, static and dynamic.
inline int64_t shared_limit(const char* name, Stream stream) {
  return simt::Executor::of(stream, name).options.shared_limit;
}

// Device memory for the kernels of one call, freed once they have run.
class Scratch {
 public:
  Scratch(const char* name, Stream stream, int64_t bytes)
      : executor_(simt::Executor::of(stream, name)), data_(executor_.allocate(bytes)) {}
  ~Scratch() { executor_.free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* floats() { return static_cast<float*>(data_); }

 private:
  simt::Executor& executor_;
  void* data_;
};

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
