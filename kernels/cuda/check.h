// Errors of the CUDA runtime library as exceptions, and its events as objects.
#pragma once
#include <memory>
#include <stdexcept>
#include <string>

#include <cuda_runtime_api.h>

namespace nanovlm::cuda {

inline void check(cudaError_t error, const std::string& what) {
  if (error != cudaSuccess) throw std::runtime_error(what + ": CUDA says: " + cudaGetErrorString(error));
}

struct DestroyEvent {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
using Event = std::unique_ptr<CUevent_st, DestroyEvent>;

// `flags` as the library has them: cudaEventDefault, which tells times, or cudaEventDisableTiming.
inline Event make_event(unsigned flags, const std::string& what) {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, flags), what + ": an event");
  return Event(event);
}

}  // namespace nanovlm::cuda
