// How the stand-in GPU starts a kernel: its stream's queue gets it. Included by kernels/device.cuh only.
#pragma once
#include <memory>

#include "kernels/launch.h"
#include "kernels/simt/call.h"
#include "kernels/simt/executor.h"
#include "kernels/stand_in/runtime.h"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

template <class... P>
void start(CUstream_st* stream, const char* name, void (*kernel)(P...), const LaunchShape& shape,
           const P&... arguments) {
  using Call = simt::Call<P...>;
  const auto call = std::make_shared<const Call>(Call{kernel, {arguments...}});
  stand_in::enqueue(stream, [=](simt::Executor& executor) {
    executor.run({name, shape, Call::thread_body, call.get(), false, reinterpret_cast<const void*>(kernel)});
  });
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS

#include "kernels/cuda/launch.h"
