// The memory that pages are decoded in: blocks that are freed serve again, small ones and too many are not kept.
#include "data/parquet/memory.h"

#include <algorithm>
#include <cstring>

#include "tests/support/catch.h"

using namespace nanovlm;

namespace {
constexpr int64_t kMiB = int64_t{1} << 20;

uint8_t* allocate(arrow::MemoryPool& memory, int64_t size) {
  uint8_t* block = nullptr;
  REQUIRE(memory.Allocate(size, &block).ok());
  std::memset(block, 7, static_cast<size_t>(size));
  return block;
}
}  // namespace

TEST_CASE("a block that was freed serves again for one of about its size") {
  PageMemory memory(16 * kMiB);
  const int64_t before = memory.bytes_allocated();
  uint8_t* const first = allocate(memory, 10 * kMiB);
  memory.Free(first, 10 * kMiB);
  uint8_t* const second = allocate(memory, 10 * kMiB - 1000);
  CHECK(second == first);
  uint8_t* const beside = allocate(memory, 10 * kMiB);
  CHECK(beside != first);
  memory.Free(second, 10 * kMiB - 1000);
  memory.Free(beside, 10 * kMiB);  // only one of the two fits what may be kept
  CHECK(memory.bytes_allocated() - before == 10 * kMiB);
  uint8_t* const small = allocate(memory, 1000);
  memory.Free(small, 1000);
  CHECK(memory.bytes_allocated() - before == 10 * kMiB);
}

TEST_CASE("a block that grows or shrinks keeps its bytes") {
  PageMemory memory(16 * kMiB);
  const int64_t sizes[] = {100, 2 * kMiB, 2 * kMiB + 5, 9 * kMiB, kMiB, 3000};
  int64_t size = 50;
  uint8_t* block = allocate(memory, size);
  for (const int64_t next : sizes) {
    CAPTURE(size, next);
    REQUIRE(memory.Reallocate(size, next, &block).ok());
    CHECK(std::count(block, block + std::min(size, next), 7) == std::min(size, next));
    std::memset(block, 7, static_cast<size_t>(next));
    size = next;
  }
  memory.Free(block, size);
}

TEST_CASE("what is in use and what is kept is counted") {
  PageMemory memory(64 * kMiB);
  const int64_t before = memory.bytes_allocated();
  uint8_t* const used = allocate(memory, 4 * kMiB);
  CHECK(memory.bytes_allocated() - before == 4 * kMiB);
  for (const int64_t size : {2 * kMiB, 6 * kMiB}) memory.Free(allocate(memory, size), size);
  CHECK(memory.bytes_allocated() - before == 12 * kMiB);
  memory.Free(used, 4 * kMiB);
  CHECK(memory.bytes_allocated() - before == 12 * kMiB);
}
