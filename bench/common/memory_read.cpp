#include "bench/common/memory_read.h"

#include <atomic>

#include "bench/common/harness.h"
#include "kernels/parallel.h"

namespace nanovlm::bench {

void MemoryRead::once() {
  std::atomic<uint64_t> total = 0;  // the words are ones: their sum tells whether all of them were read
  const uint64_t* words = words_.data();
  kernels::parallel_for(kBytes / 8, 1 << 16, [&](int64_t begin, int64_t end) {
    uint64_t sum = 0;
    for (int64_t i = begin; i < end; ++i) sum += words[i];
    total += sum;
  });
  require(total == kBytes / 8, "reading memory gave a wrong sum");
}

}  // namespace nanovlm::bench
