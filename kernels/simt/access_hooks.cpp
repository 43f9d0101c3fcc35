// The functions that -fsanitize=thread makes a compiler call, in place of the sanitizer's runtime: kernel files are
// compiled with it in the instrumented build, and every access of theirs comes here. Outside kernels they do nothing.
#if !defined(__SANITIZE_THREAD__)  // under the real sanitizer its own runtime is wanted
#include <cstdint>

#include "kernels/simt/block.h"
#include "kernels/simt/checker.h"

namespace {

inline void on_access(const void* instruction, const void* address, int64_t bytes, int alignment, bool write) {
  nanovlm::simt::Block* block = nanovlm::simt::current_block;
  if (!block || !block->checker()) return;
  block->enter_hook();
  // The return address may already belong to the next line.
  block->checker()->access(static_cast<const char*>(instruction) - 1, address, static_cast<int>(bytes), alignment,
                           write);
  block->leave_hook();
}

template <class T>
T exchange_add(volatile T* address, T value) {
  return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);
}

}  // namespace

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

// Those that are named for a size alone are called for an address that the compiler takes to be a multiple of it, or of
// 8 if it is 16: what a GPU needs, since nvcc goes by the same types.
#define NANOVLM_ACCESS(name, bytes, alignment, write) \
  void name(const void* address) { on_access(__builtin_return_address(0), address, bytes, alignment, write); }
NANOVLM_ACCESS(__tsan_read1, 1, 1, false)
NANOVLM_ACCESS(__tsan_read2, 2, 2, false)
NANOVLM_ACCESS(__tsan_read4, 4, 4, false)
NANOVLM_ACCESS(__tsan_read8, 8, 8, false)
NANOVLM_ACCESS(__tsan_read16, 16, 8, false)
NANOVLM_ACCESS(__tsan_write1, 1, 1, true)
NANOVLM_ACCESS(__tsan_write2, 2, 2, true)
NANOVLM_ACCESS(__tsan_write4, 4, 4, true)
NANOVLM_ACCESS(__tsan_write8, 8, 8, true)
NANOVLM_ACCESS(__tsan_write16, 16, 8, true)
NANOVLM_ACCESS(__tsan_unaligned_read2, 2, 1, false)
NANOVLM_ACCESS(__tsan_unaligned_read4, 4, 1, false)
NANOVLM_ACCESS(__tsan_unaligned_read8, 8, 1, false)
NANOVLM_ACCESS(__tsan_unaligned_read16, 16, 1, false)
NANOVLM_ACCESS(__tsan_unaligned_write2, 2, 1, true)
NANOVLM_ACCESS(__tsan_unaligned_write4, 4, 1, true)
NANOVLM_ACCESS(__tsan_unaligned_write8, 8, 1, true)
NANOVLM_ACCESS(__tsan_unaligned_write16, 16, 1, true)
#undef NANOVLM_ACCESS

void __tsan_read_range(const void* address, unsigned long bytes) {
  on_access(__builtin_return_address(0), address, static_cast<int64_t>(bytes), 1, false);
}
void __tsan_write_range(const void* address, unsigned long bytes) {
  on_access(__builtin_return_address(0), address, static_cast<int64_t>(bytes), 1, true);
}

// Kernels have no std::atomic; tests compiled beside them may, through std::shared_ptr.
int __tsan_atomic32_load(const volatile int* address, int) { return __atomic_load_n(address, __ATOMIC_SEQ_CST); }
int __tsan_atomic32_fetch_add(volatile int* address, int value, int) { return exchange_add(address, value); }
long __tsan_atomic64_load(const volatile long* address, int) { return __atomic_load_n(address, __ATOMIC_SEQ_CST); }
char __tsan_atomic8_load(const volatile char* address, int) { return __atomic_load_n(address, __ATOMIC_SEQ_CST); }

}  // extern "C"
#endif
