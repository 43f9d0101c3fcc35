// Fibers: one stack each, switched by Boost.Context's assembly. A CUDA thread runs on one; see block.h.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include <boost/context/detail/fcontext.hpp>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace nanovlm::simt {

struct Fiber {
  boost::context::detail::fcontext_t context = nullptr;  // where it stopped
  const void* stack = nullptr;                           // lowest usable address
  size_t stack_bytes = 0;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
#elif defined(__SANITIZE_THREAD__)
  void* sanitizer_fiber = nullptr;
#endif
};

// Called first on a fresh fiber, with what jump_fcontext handed over.
inline void arrive(Fiber& self, boost::context::detail::transfer_t from) {
  Fiber& previous = *static_cast<Fiber*>(from.data);
  previous.context = from.fctx;
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(self.fake_stack, &bottom, &bytes);
  if (!previous.stack) previous.stack = bottom, previous.stack_bytes = bytes;
#else
  (void)self;
#endif
}

// Stops `from`, which is running, and continues `to`. Returns when somebody switches back to `from`.
inline void switch_fiber(Fiber& from, Fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
#elif defined(__SANITIZE_THREAD__)
  if (!from.sanitizer_fiber) from.sanitizer_fiber = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to.sanitizer_fiber, 0);
#endif
  arrive(from, boost::context::detail::jump_fcontext(to.context, &from));
}

// The stacks of one worker thread. A fiber is idle, or taken by a CUDA thread until that returns.
class FiberPool {
 public:
  using Entry = void (*)(boost::context::detail::transfer_t);

  FiberPool(Entry entry, int capacity);
  ~FiberPool();
  FiberPool(const FiberPool&) = delete;
  FiberPool& operator=(const FiberPool&) = delete;

  Fiber* take() {
    if (idle_.empty()) grow();
    Fiber* fiber = idle_.back();
    idle_.pop_back();
    return fiber;
  }
  void give_back(Fiber* fiber) { idle_.push_back(fiber); }

  // Abandons whatever the fibers were doing: all are idle and start at the entry. Nothing on their stacks is destroyed.
  void restart_all();

  bool holds(const void* address) const {
    return address >= memory_ && address < static_cast<const char*>(memory_) + bytes_;
  }

 private:
  void grow();
  void prepare(Fiber& fiber);

  Entry entry_;
  int capacity_;
  size_t bytes_;
  void* memory_;
  std::vector<Fiber> fibers_;
  std::vector<Fiber*> idle_;
};

}  // namespace nanovlm::simt
