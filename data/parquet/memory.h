// Memory of pages on their way through the page cache.
#pragma once
#include <atomic>
#include <deque>
#include <mutex>

#include <arrow/memory_pool.h>

namespace nanovlm {

// Reading a row may take blocks of megabytes - a page's bytes, compressed and not, and its decoded values - that are
// free again before the next one asks. An allocator that gives them back to the system in between pays for each with
// page faults, which cost as much as reading does. Here the last ones freed are kept, and new ones lie on huge pages
// where the system has any.
class PageMemory final : public arrow::MemoryPool {
 public:
  explicit PageMemory(int64_t max_kept_bytes) : max_kept_bytes_(max_kept_bytes) {}
  ~PageMemory() override;

  using MemoryPool::Allocate;
  using MemoryPool::Free;
  using MemoryPool::Reallocate;
  arrow::Status Allocate(int64_t size, int64_t alignment, uint8_t** out) override;
  arrow::Status Reallocate(int64_t old_size, int64_t new_size, int64_t alignment, uint8_t** block) override;
  void Free(uint8_t* block, int64_t size, int64_t alignment) override;

  // What is in use, the small ones of the system's pool included, and what is kept.
  int64_t bytes_allocated() const override { return base_->bytes_allocated() + held_bytes_.load(); }
  // Of the system's pool alone.
  int64_t max_memory() const override { return base_->max_memory(); }
  int64_t total_bytes_allocated() const override { return base_->total_bytes_allocated(); }
  int64_t num_allocations() const override { return base_->num_allocations(); }
  std::string backend_name() const override { return base_->backend_name(); }

 private:
  struct Block {
    uint8_t* begin;
    int64_t bytes;
  };

  void give_back(const Block& block);

  const int64_t max_kept_bytes_;
  arrow::MemoryPool* const base_ = arrow::default_memory_pool();
  std::atomic<int64_t> held_bytes_ = 0;  // of all blocks, in use or kept
  std::mutex mutex_;
  std::deque<Block> kept_;  // the last one freed is the last one here
  int64_t kept_bytes_ = 0;
};

}  // namespace nanovlm
