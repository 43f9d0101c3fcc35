#include "tests/support/memory.h"

#include <cstdint>
#include <new>
#if defined(NANOVLM_CUDA_KERNELS)
#include "kernels/cuda/check.h"
#include "kernels/cuda/gpu.h"
#endif
#if defined(NANOVLM_SIMT_KERNELS)
#include "kernels/simt/memory.h"
#endif

namespace nanovlm::testing {
namespace {

constexpr std::align_val_t kAlignment{64};
constexpr size_t kRedZone = 256;  // bytes before and after

// One answer for the whole run, so that memory is given back where it came from.
bool has_gpu() {
#if defined(NANOVLM_CUDA_KERNELS)
  static const bool there = cuda::why_absent().empty();
  return there;
#else
  return false;
#endif
}

void* take_raw(size_t bytes) {
  if (!has_gpu()) return ::operator new(bytes, kAlignment);
  void* memory = nullptr;
#if defined(NANOVLM_CUDA_KERNELS)
  cuda::check(cudaMallocManaged(&memory, bytes), "managed memory for a test");
#endif
  return memory;
}

void give_raw(void* memory) {
  if (!has_gpu()) return ::operator delete(memory, kAlignment);
#if defined(NANOVLM_CUDA_KERNELS)
  cudaFree(memory);
#endif
}

// A NaN at every even address, and other bytes than those of memory that nobody has written: a kernel that copies what
// lies past the end to a place past the end shows.
uint8_t red_byte(const uint8_t* at) { return reinterpret_cast<uintptr_t>(at) % 2 ? 0x7f : 0xd5; }

void paint(uint8_t* begin) {
  for (uint8_t* at = begin; at < begin + kRedZone; ++at) *at = red_byte(at);
}

bool is_painted(const uint8_t* begin) {
  for (const uint8_t* at = begin; at < begin + kRedZone; ++at)
    if (*at != red_byte(at)) return false;
  return true;
}

}  // namespace

void* take_memory(size_t bytes, [[maybe_unused]] Bounds bounds) {
#if defined(NANOVLM_SIMT_KERNELS)
  if (bounds == Bounds::by_executor) return simt::operand_memory().allocate(static_cast<int64_t>(bytes));
#endif
  uint8_t* memory = static_cast<uint8_t*>(take_raw(bytes + 2 * kRedZone)) + kRedZone;
  paint(memory - kRedZone), paint(memory + bytes);
  std::memset(memory, 0xff, bytes);
  return memory;
}

void give_memory(void* memory, [[maybe_unused]] Bounds bounds) {
#if defined(NANOVLM_SIMT_KERNELS)
  if (bounds == Bounds::by_executor) return simt::operand_memory().free(memory);
#endif
  give_raw(static_cast<uint8_t*>(memory) - kRedZone);
}

bool is_intact(const void* memory, size_t bytes, [[maybe_unused]] Bounds bounds) {
#if defined(NANOVLM_SIMT_KERNELS)
  if (bounds == Bounds::by_executor) return simt::operand_memory().overrun().empty();
#endif
  const uint8_t* begin = static_cast<const uint8_t*>(memory);
  return is_painted(begin - kRedZone) && is_painted(begin + bytes);
}

}  // namespace nanovlm::testing
