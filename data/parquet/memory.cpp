#include "data/parquet/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <future>

namespace nanovlm {
namespace {
constexpr int64_t kLeast = int64_t{1} << 20;  // of a block that is kept
constexpr int64_t kAlignment = arrow::kDefaultBufferAlignment;
constexpr int64_t kHugePage = int64_t{2} << 20, kSmallPage = 4096;

bool may_be_kept(int64_t size, int64_t alignment) { return size >= kLeast && alignment == kAlignment; }

// Pages differ a little in size: a block has the next eighth of a power of two, so that one fits the other. What no
// page uses of it is never touched.
int64_t block_bytes(int64_t size) {
  const int64_t step = std::max(static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(size))) / 8, kHugePage);
  return (size + step - 1) / step * step;
}

// Asks for the pages of memory that will be written. Where the system can't be asked (Linux before 5.14), they come as
// they are written.
void touch([[maybe_unused]] uint8_t* begin, [[maybe_unused]] int64_t bytes) {
#if defined(MADV_POPULATE_WRITE)
  madvise(begin, static_cast<size_t>(bytes), MADV_POPULATE_WRITE);
#endif
}

// The first `size` bytes are touched by two threads: to a virtual machine memory may come at 3 ms a megabyte.
uint8_t* new_block(int64_t bytes, int64_t size) {
  auto* const block = static_cast<uint8_t*>(std::aligned_alloc(kHugePage, static_cast<size_t>(bytes)));
  if (!block) return nullptr;
  madvise(block, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // where it is refused, small pages do
  const int64_t half = size / 2 / kHugePage * kHugePage;
  if (half == 0) return block;
  const auto first = std::async(std::launch::async, [&] { touch(block, half); });
  touch(block + half, (size - half) / kSmallPage * kSmallPage);
  first.wait();
  return block;
}
}  // namespace

PageMemory::~PageMemory() {
  for (const Block& block : kept_) give_back(block);
}

void PageMemory::give_back(const Block& block) {
  std::free(block.begin);
  held_bytes_ -= block.bytes;
}

arrow::Status PageMemory::Allocate(int64_t size, int64_t alignment, uint8_t** out) {
  if (!may_be_kept(size, alignment)) return base_->Allocate(size, alignment, out);
  const int64_t bytes = block_bytes(size);
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(kept_.rbegin(), kept_.rend(), [&](const Block& b) { return b.bytes == bytes; });
    if (found != kept_.rend()) {
      *out = found->begin;
      kept_bytes_ -= bytes;
      kept_.erase(std::next(found).base());
      return arrow::Status::OK();
    }
  }
  *out = new_block(bytes, size);
  if (!*out) return arrow::Status::OutOfMemory("no memory for ", bytes, " bytes of a page");
  held_bytes_ += bytes;
  return arrow::Status::OK();
}

arrow::Status PageMemory::Reallocate(int64_t old_size, int64_t new_size, int64_t alignment, uint8_t** block) {
  const bool old_kept = may_be_kept(old_size, alignment), new_kept = may_be_kept(new_size, alignment);
  if (!old_kept && !new_kept) return base_->Reallocate(old_size, new_size, alignment, block);
  if (old_kept && new_kept && block_bytes(old_size) == block_bytes(new_size)) return arrow::Status::OK();
  uint8_t* other = nullptr;
  ARROW_RETURN_NOT_OK(Allocate(new_size, alignment, &other));
  std::memcpy(other, *block, static_cast<size_t>(std::min(old_size, new_size)));
  Free(*block, old_size, alignment);
  *block = other;
  return arrow::Status::OK();
}

void PageMemory::Free(uint8_t* block, int64_t size, int64_t alignment) {
  if (!may_be_kept(size, alignment)) return base_->Free(block, size, alignment);
  const std::lock_guard lock(mutex_);
  kept_.push_back({block, block_bytes(size)});
  for (kept_bytes_ += kept_.back().bytes; kept_bytes_ > max_kept_bytes_; kept_.pop_front()) {
    give_back(kept_.front());
    kept_bytes_ -= kept_.front().bytes;
  }
}

}  // namespace nanovlm
