#include "engine/allocator.h"

#include <sys/mman.h>

#include <algorithm>

#include "engine/error.h"

namespace nanovlm {
namespace {

constexpr size_t kAlignment = 256;             // what cudaMalloc promises, so that a block is as good as a segment
constexpr size_t kSegment = size_t{16} << 20;  // small requests share segments of this size
constexpr size_t kHugePage = size_t{2} << 20;

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

double mebibytes(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

std::string class_list(const std::array<int64_t, kMemoryClasses>& bytes) {
  std::string list;
  for (int i = 0; i < kMemoryClasses; ++i)
    if (bytes[i] > 0)
      list += text(list.empty() ? "" : ", ", name_of(static_cast<MemoryClass>(i)), " ",
                   static_cast<int64_t>(mebibytes(bytes[i]) + 0.5));
  return list.empty() ? "nothing" : list;
}

}  // namespace

const char* name_of(MemoryClass memory_class) {
  constexpr const char* names[kMemoryClasses] = {"parameters", "gradients", "optimizer", "activations", "workspace"};
  return names[static_cast<int>(memory_class)];
}

std::string MemoryReport::text() const {
  std::ostringstream out;
  out.precision(1);
  out << std::fixed << "peak " << mebibytes(peak) << " MiB (" << class_list(at_peak) << "), in use "
      << mebibytes(in_use) << " MiB, reserved " << mebibytes(reserved) << " MiB";
  return out.str();
}

CachingAllocator::Source CachingAllocator::host_memory() {
  // Segments come straight from mmap: they are zero pages until touched, and go back to the system whole.
  return {[](size_t bytes) -> void* {
            void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (p == MAP_FAILED) return nullptr;
            madvise(p, bytes, MADV_HUGEPAGE);  // fewer TLB misses; only a hint
            return p;
          },
          [](void* p, size_t bytes) { munmap(p, bytes); },
          {},
          true};
}

CachingAllocator::~CachingAllocator() {
  for (const auto& [address, bytes] : segments_) source_.give_back(address, bytes);
}

CachingAllocator::Blocks::iterator CachingAllocator::take_segment(size_t bytes) {
  if (fixed_) return blocks_.end();
  size_t size = round_up(std::max(bytes, kSegment), kHugePage);
  if (source_.cheap && bytes > kSegment) release_unused_locked();
  void* p = source_.take(size);
  if (!p) {
    release_unused_locked();
    p = source_.take(size);
  }
  if (!p) {
    size = round_up(bytes, kHugePage);
    p = source_.take(size);
  }
  if (!p) return blocks_.end();
  char* address = static_cast<char*>(p);
  segments_[address] = size;
  report_.reserved += static_cast<int64_t>(size);
  free_of(address).emplace(size, address);
  return blocks_.emplace(address, Block{size, false, MemoryClass::activation, address}).first;
}

CachingAllocator::Blocks::iterator CachingAllocator::find_free(const FreeBlocks& free, size_t bytes) {
  const auto fit = free.lower_bound({bytes, nullptr});
  return fit == free.end() ? blocks_.end() : blocks_.find(fit->second);
}

void* CachingAllocator::allocate(size_t bytes, MemoryClass memory_class) {
  const std::lock_guard lock(mutex_);
  const size_t size = round_up(std::max<size_t>(bytes, 1), kAlignment);
  auto block = find_free(size > kSegment ? free_large_ : free_, size);
  if (block == blocks_.end()) block = take_segment(size);
  if (block == blocks_.end()) block = find_free(free_large_, size);
  if (block == blocks_.end()) fail(out_of_memory(bytes));
  FreeBlocks& free = free_of(block->second.segment);
  free.erase({block->second.size, block->first});

  if (const size_t rest = block->second.size - size; rest > 0) {
    char* address = block->first + size;
    blocks_.emplace(address, Block{rest, false, MemoryClass::activation, block->second.segment});
    free.emplace(rest, address);
    block->second.size = size;
  }
  block->second.used = true;
  trail_ = trail_ * 1099511628211u + reinterpret_cast<uintptr_t>(block->first);
  block->second.memory_class = memory_class;

  report_.in_use += static_cast<int64_t>(size);
  report_.by_class[static_cast<int>(memory_class)] += static_cast<int64_t>(size);
  if (report_.in_use > report_.peak) {
    report_.peak = report_.in_use;
    report_.at_peak = report_.by_class;
  }
  return block->first;
}

void CachingAllocator::free(void* address) {
  const std::lock_guard lock(mutex_);
  auto block = blocks_.find(static_cast<char*>(address));
  check(block != blocks_.end() && block->second.used, "allocator: ", address, " is not a block in use");
  report_.in_use -= static_cast<int64_t>(block->second.size);
  report_.by_class[static_cast<int>(block->second.memory_class)] -= static_cast<int64_t>(block->second.size);
  block->second.used = false;
  FreeBlocks& free = free_of(block->second.segment);

  const auto join = [&](Blocks::iterator left, Blocks::iterator right) {
    left->second.size += right->second.size;
    blocks_.erase(right);
    return left;
  };
  if (const auto next = std::next(block);
      next != blocks_.end() && !next->second.used && next->second.segment == block->second.segment) {
    free.erase({next->second.size, next->first});
    join(block, next);
  }
  if (block != blocks_.begin()) {
    const auto previous = std::prev(block);
    if (!previous->second.used && previous->second.segment == block->second.segment) {
      free.erase({previous->second.size, previous->first});
      block = join(previous, block);
    }
  }
  free.emplace(block->second.size, block->first);
}

CachingAllocator::FreeBlocks& CachingAllocator::free_of(char* segment) {
  return segments_.at(segment) > kSegment ? free_large_ : free_;
}

MemoryReport CachingAllocator::report() const {
  const std::lock_guard lock(mutex_);
  return report_;
}

void CachingAllocator::reset_peak() {
  const std::lock_guard lock(mutex_);
  report_.peak = report_.in_use;
  report_.at_peak = report_.by_class;
}

void CachingAllocator::release_unused() {
  const std::lock_guard lock(mutex_);
  release_unused_locked();
}

void CachingAllocator::release_unused_locked() {
  if (fixed_) return;
  for (auto segment = segments_.begin(); segment != segments_.end();) {
    const auto [address, size] = *segment;
    const auto block = blocks_.find(address);
    const bool unused = block != blocks_.end() && !block->second.used && block->second.size == size;
    if (!unused) {
      ++segment;
      continue;
    }
    free_of(address).erase({size, address});
    blocks_.erase(block);
    source_.give_back(address, size);
    report_.reserved -= static_cast<int64_t>(size);
    segment = segments_.erase(segment);
  }
}

std::string CachingAllocator::out_of_memory(size_t bytes) const {
  std::vector<std::pair<size_t, const Block*>> used;
  for (const auto& [address, block] : blocks_)
    if (block.used) used.emplace_back(block.size, &block);
  std::sort(used.begin(), used.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::string largest;
  for (size_t i = 0; i < std::min<size_t>(used.size(), 3); ++i)
    largest += text(i ? ", " : "", static_cast<int64_t>(mebibytes(used[i].first)), " (",
                    name_of(used[i].second->memory_class), ")");
  size_t largest_free = 0;
  for (const FreeBlocks* free : {&free_, &free_large_})
    if (!free->empty()) largest_free = std::max(largest_free, free->rbegin()->first);
  const int64_t cached = static_cast<int64_t>(largest_free);
  const int64_t left = source_.left ? source_.left() : 0;
  const auto whole = [](int64_t bytes) { return static_cast<int64_t>(mebibytes(bytes)); };
  return text("out of memory: asked for ", whole(static_cast<int64_t>(bytes)) + 1, " MiB, in use ",
              whole(report_.in_use), " MiB (", class_list(report_.by_class), "), reserved ", whole(report_.reserved),
              " MiB", source_.left ? text(", left on the device ", whole(left), " MiB") : "", "; at most ",
              whole(std::max(cached, left)),
              " MiB would fit; largest blocks in MiB: ", largest.empty() ? "none" : largest,
              fixed_ ? "; no more may be taken while launches are recorded" : "");
}

}  // namespace nanovlm
