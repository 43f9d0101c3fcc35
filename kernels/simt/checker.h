// What the instrumented build adds: every memory access of a kernel is checked and counted.
#pragma once
#include <cstdint>

#include "kernels/simt/block.h"
#include "kernels/simt/memory.h"

namespace nanovlm::simt {

class Checker {
 public:
  explicit Checker(DeviceMemory& memory) : memory_(memory) {}

  void begin_launch(KernelReport& report) { report_ = &report; }
  void end_launch() {}
  void begin_block(Block&) {}
  void end_block() {}
  void block_barrier() {}
  void warp_barrier(int, uint32_t) {}
  void fence() {}
  void atomic(const void*, int64_t, Where) {}
  void wrapper_access(const char*, const void*, int, bool, Where) {}
  void copy_issued(const AsyncCopy&, Where) {}
  void copy_done(const AsyncCopy&, Where) {}

 private:
  DeviceMemory& memory_;
  KernelReport* report_ = nullptr;
};

}  // namespace nanovlm::simt
