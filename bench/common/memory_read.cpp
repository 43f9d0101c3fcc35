#include "bench/common/memory_read.h"

#include <algorithm>
#include <atomic>

#include "bench/common/harness.h"
#include "kernels/parallel.h"

namespace nanovlm::bench {

MemoryRead::MemoryRead(const Device& host) : words_(empty({kBytes / 4}, DType::i32, host)) {
  auto* const words = static_cast<uint64_t*>(words_.data());
  kernels::parallel_for(kBytes / 8, 1 << 16,
                        [&](int64_t begin, int64_t end) { std::fill(words + begin, words + end, 1); });
}

void MemoryRead::once() {
  std::atomic<uint64_t> total = 0;  // the words are ones: their sum tells whether all of them were read
  const auto* const words = static_cast<const uint64_t*>(words_.data());
  kernels::parallel_for(kBytes / 8, 1 << 16, [&](int64_t begin, int64_t end) {
    uint64_t sum = 0;
    for (int64_t i = begin; i < end; ++i) sum += words[i];
    total += sum;
  });
  require(total == kBytes / 8, "reading memory gave a wrong sum");
}

}  // namespace nanovlm::bench
