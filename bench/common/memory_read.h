// Reading memory that no cache holds: the ceiling of everything that memory bounds.
#pragma once
#include <cstdint>

#include "engine/tensor.h"

namespace nanovlm::bench {

class MemoryRead {
 public:
  static constexpr int64_t kBytes = int64_t{256} << 20;

  explicit MemoryRead(const Device& host);  // the memory is a tensor's there, as weights are
  void once();                              // reads all of it, on every thread of the pool

 private:
  Tensor words_;  // two i32 are a word
};

}  // namespace nanovlm::bench
