// Reading memory that no cache holds: the ceiling of everything that memory bounds.
#pragma once
#include <cstdint>
#include <vector>

namespace nanovlm::bench {

class MemoryRead {
 public:
  static constexpr int64_t kBytes = int64_t{256} << 20;

  MemoryRead() : words_(kBytes / 8, 1) {}
  void once();  // reads all of it, on every thread of the pool

 private:
  std::vector<uint64_t> words_;
};

}  // namespace nanovlm::bench
