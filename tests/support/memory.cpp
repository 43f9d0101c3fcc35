#include "tests/support/memory.h"

#include <new>
#if defined(NANOVLM_CUDA_KERNELS)
#include "kernels/cuda/check.h"
#include "kernels/cuda/gpu.h"
#endif

namespace nanovlm::testing {
namespace {

constexpr std::align_val_t kAlignment{64};

// One answer for the whole run, so that memory is given back where it came from.
bool has_gpu() {
#if defined(NANOVLM_CUDA_KERNELS)
  static const bool there = cuda::why_absent().empty();
  return there;
#else
  return false;
#endif
}

}  // namespace

void* take_memory(size_t bytes) {
  if (!has_gpu()) return ::operator new(bytes, kAlignment);
  void* memory = nullptr;
#if defined(NANOVLM_CUDA_KERNELS)
  cuda::check(cudaMallocManaged(&memory, bytes), "managed memory for a test");
#endif
  return memory;
}

void give_memory(void* memory) {
  if (!has_gpu()) return ::operator delete(memory, kAlignment);
#if defined(NANOVLM_CUDA_KERNELS)
  cudaFree(memory);
#endif
}

}  // namespace nanovlm::testing
