#include "kernels/simt/fiber.h"

#include <stdexcept>
#include <string>

#include <sys/mman.h>

namespace nanovlm::simt {
namespace {
// A slot is a guard page, which turns an overflow into a fault, and a stack. The stacks' tops are staggered: tops that
// are a large power of two apart share the same few cache sets, and a switch then misses the cache.
constexpr size_t kGuard = 4096, kSlot = 256 * 1024, kStaggerStep = 64, kStaggers = 61;
}  // namespace

FiberPool::FiberPool(Entry entry, int capacity)
    : entry_(entry), capacity_(capacity), bytes_(kSlot * static_cast<size_t>(capacity)) {
  memory_ =
      mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (memory_ == MAP_FAILED)
    throw std::runtime_error("simt: no memory for " + std::to_string(capacity) + " fiber stacks");
  fibers_.reserve(static_cast<size_t>(capacity));  // their addresses are handed out
}

FiberPool::~FiberPool() {
#if defined(__SANITIZE_ADDRESS__)
  // Idle fibers never returned from their frames: whoever is given these addresses next must not find them forbidden.
  for (const Fiber& fiber : fibers_) ASAN_UNPOISON_MEMORY_REGION(fiber.stack, fiber.stack_bytes);
#elif defined(__SANITIZE_THREAD__)
  for (Fiber& fiber : fibers_) __tsan_destroy_fiber(fiber.sanitizer_fiber);
#endif
  munmap(memory_, bytes_);
}

void FiberPool::prepare(Fiber& fiber) {
  char* top = static_cast<char*>(const_cast<void*>(fiber.stack)) + fiber.stack_bytes;
  fiber.context = boost::context::detail::make_fcontext(top, fiber.stack_bytes, entry_);
#if defined(__SANITIZE_ADDRESS__)
  fiber.fake_stack = nullptr;
  ASAN_UNPOISON_MEMORY_REGION(fiber.stack, fiber.stack_bytes);  // an abandoned kernel's frames
#elif defined(__SANITIZE_THREAD__)
  if (fiber.sanitizer_fiber) __tsan_destroy_fiber(fiber.sanitizer_fiber);
  fiber.sanitizer_fiber = __tsan_create_fiber(0);
#endif
}

void FiberPool::grow() {
  const size_t n = fibers_.size();
  if (n == static_cast<size_t>(capacity_)) throw std::logic_error("simt: more fibers than threads in a block");
  char* slot = static_cast<char*>(memory_) + n * kSlot;
  if (mprotect(slot, kGuard, PROT_NONE) != 0) throw std::runtime_error("simt: cannot protect a fiber's guard page");
  Fiber& fiber = fibers_.emplace_back();
  fiber.stack = slot + kGuard;
  fiber.stack_bytes = kSlot - kGuard - n % kStaggers * kStaggerStep;
  prepare(fiber);
  idle_.push_back(&fiber);
}

void FiberPool::restart_all() {
  idle_.clear();
  for (Fiber& fiber : fibers_) {
    prepare(fiber);
    idle_.push_back(&fiber);
  }
}

}  // namespace nanovlm::simt
