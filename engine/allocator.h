// A caching allocator: memory is taken from the system in large segments, cut into blocks, and blocks that are given
// back are joined with free neighbours and used again. It knows how much is in use, by class, now and at the peak.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>

namespace nanovlm {

// What a block of memory holds.
enum class MemoryClass : uint8_t { parameter, gradient, optimizer, activation, workspace };
constexpr int kMemoryClasses = 5;
const char* name_of(MemoryClass memory_class);

struct MemoryReport {
  int64_t in_use = 0, peak = 0;                               // bytes
  int64_t reserved = 0;                                       // bytes taken from the system
  std::array<int64_t, kMemoryClasses> by_class{}, at_peak{};  // bytes in use now, and at the moment of the peak
  std::string text() const;                                   // one line
};

class CachingAllocator {
 public:
  // Where segments come from: take returns null when there is no more; left tells, where known, how much there still
  // is.
  struct Source {
    std::function<void*(size_t bytes)> take;
    std::function<void(void*, size_t bytes)> give_back;
    std::function<int64_t()> left = {};
    // Taking and giving back cost little: before a large segment is taken, those that no block uses are given back, so
    // that a process is no larger than its work. Once a training step has found its segments, the next takes none.
    bool cheap = false;
  };
  static Source host_memory();

  explicit CachingAllocator(Source source) : source_(std::move(source)) {}
  ~CachingAllocator();
  CachingAllocator(const CachingAllocator&) = delete;
  CachingAllocator& operator=(const CachingAllocator&) = delete;

  // 256-byte aligned, not initialised. Errors: out of memory, with what was asked, what is in use, by which classes and
  // largest blocks, and what would fit.
  void* allocate(size_t bytes, MemoryClass memory_class);
  void free(void* address);

  MemoryReport report() const;
  void reset_peak();
  void release_unused();  // gives segments without a used block back to the system, unless they are fixed

  // No segment is taken or given back while it is fixed: what does not fit is an error.
  void fix(bool fixed) { fixed_ = fixed; }
  // A digest of the addresses that were given out since start_trail().
  void start_trail() { trail_ = 0; }
  uint64_t trail() const { return trail_; }

 private:
  struct Block {
    size_t size = 0;
    bool used = false;
    MemoryClass memory_class = MemoryClass::activation;
    char* segment = nullptr;  // blocks are joined only within a segment
  };
  using Blocks = std::map<char*, Block>;

  using FreeBlocks = std::set<std::pair<size_t, char*>>;  // by size: best fit, lowest address first

  Blocks::iterator find_free(const FreeBlocks& free, size_t bytes);  // end() where nothing fits
  Blocks::iterator take_segment(size_t bytes);                       // end() where there is no more
  FreeBlocks& free_of(char* segment);
  std::string out_of_memory(size_t bytes) const;
  void release_unused_locked();

  Source source_;
  mutable std::mutex mutex_;
  Blocks blocks_;  // every block, by address
  // Large segments hold large blocks only: small ones that live long would break them up.
  FreeBlocks free_, free_large_;
  std::map<char*, size_t> segments_;
  MemoryReport report_;
  bool fixed_ = false;
  uint64_t trail_ = 0;
};

}  // namespace nanovlm
