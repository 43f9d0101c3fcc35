// The memory that pages are decoded in: blocks that are freed serve again, small ones and too many are not kept.
// Dictionaries whose values stay where they are. Which pages are kept.
#include <algorithm>
#include <cstring>

#include <arrow/buffer.h>

#include "data/parquet/dictionary.h"
#include "data/parquet/memory.h"
#include "data/parquet/pages.h"
#include "engine/error.h"

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

std::shared_ptr<parquet::DictionaryPage> dictionary_page(std::string bytes, int32_t values,
                                                         parquet::Encoding::type encoding = parquet::Encoding::PLAIN) {
  return std::make_shared<parquet::DictionaryPage>(arrow::Buffer::FromString(std::move(bytes)), values, encoding);
}

const std::string kThree("\x02\0\0\0ab\0\0\0\0\x01\0\0\0c", 15);  // "ab", "" and "c"
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

TEST_CASE("a dictionary's values are found by the numbers that Arrow gets") {
  const Dictionary dictionary(dictionary_page(kThree, 3));
  const Dictionary numbers(dictionary.numbers());
  const std::string expected[] = {"ab", "", "c"};
  const auto get = [&](uint32_t i) { return dictionary.value({sizeof(i), reinterpret_cast<const uint8_t*>(&i)}); };
  for (uint32_t i = 0; i < 3; ++i) {
    CHECK(get(i) == expected[i]);
    // What Arrow reads as value i of the numbers is i.
    const std::string_view number = numbers.value({sizeof(i), reinterpret_cast<const uint8_t*>(&i)});
    REQUIRE(number.size() == sizeof(i));
    CHECK(std::memcmp(number.data(), &i, sizeof(i)) == 0);
  }
}

TEST_CASE("a dictionary that is not what it promises is refused") {
  CHECK_THROWS_WITH(Dictionary(dictionary_page(kThree, 4)), contains("expected 4 values in the dictionary, found 3"));
  CHECK_THROWS_WITH(Dictionary(dictionary_page(kThree.substr(0, 14), 3)), contains("expected 1 bytes as value 2"));
  CHECK_THROWS_WITH(Dictionary(dictionary_page(std::string("\xff\xff\xff\xff", 4), 1)),
                    contains("expected 4294967295 bytes as value 0 of the dictionary, found 0"));
  CHECK_THROWS_WITH(Dictionary(dictionary_page(kThree, -1)), contains("found -1"));
  CHECK_THROWS_WITH(Dictionary(dictionary_page(kThree, 3, parquet::Encoding::DELTA_BYTE_ARRAY)),
                    contains("expected a plain dictionary"));
}

TEST_CASE("a large page is kept when it is asked for a third time, a small one at once") {
  const auto kept_after = [](int reads, int64_t large_bytes, const std::string& file = "mmstar",
                             const char* column = "question") {
    const auto cache = std::make_shared<PageCache>(int64_t{1} << 30, large_bytes);
    const ParquetPages pages(text(NANOVLM_FIXTURES, "/data/", file, ".parquet"), cache);
    const int leaf = pages.metadata().schema()->ColumnIndex(column);
    REQUIRE(leaf >= 0);
    std::weak_ptr<const ParquetPage> page;
    for (int i = 0; i < reads; ++i) page = pages.read(0, leaf, 0).pages.at(0);
    return !page.expired();
  };
  CHECK(kept_after(1, PageCache::kLargeBytes));
  CHECK_FALSE(kept_after(1, 0));
  CHECK_FALSE(kept_after(2, 0));
  CHECK(kept_after(3, 0));
  CHECK(kept_after(1, 0, "cauldron", "texts.list.element.user"));  // lists: the page's rows had to be counted before
}
