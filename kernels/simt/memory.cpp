#include "kernels/simt/memory.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>

#include <sys/mman.h>

#include "kernels/available_memory.h"
#include "kernels/simt/shared_memory.h"

namespace nanovlm::simt {
namespace {
constexpr int64_t kReserved = int64_t{64} << 30, kSmallestReserved = int64_t{1} << 30;
constexpr int64_t kAlign = 256, kZone = 256;
constexpr int64_t kLarge = 64 << 20;    // smaller allocations are not held against the machine's memory
constexpr int64_t kGiveBack = 1 << 20;  // freed stretches from this size on return their pages to the system

int64_t round_up(int64_t bytes, int64_t to) { return (bytes + to - 1) / to * to; }

bool poisoned(const char* begin, const char* end) {
  for (; begin < end; ++begin)
    if (static_cast<uint8_t>(*begin) != kPoison) return false;
  return true;
}
}  // namespace

DeviceMemory::DeviceMemory() {
  for (bytes_ = kReserved; bytes_ >= kSmallestReserved; bytes_ /= 2) {
    void* memory = mmap(nullptr, static_cast<size_t>(bytes_), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) continue;
    begin_ = static_cast<char*>(memory);
    free_[0] = bytes_;
    return;
  }
  throw std::bad_alloc();
}

DeviceMemory::~DeviceMemory() { munmap(begin_, static_cast<size_t>(bytes_)); }

void* DeviceMemory::allocate(int64_t bytes) {
  if (bytes < 0 || bytes > bytes_) throw std::bad_alloc();
  const int64_t size = kZone + round_up(bytes, kAlign) + kZone;
  // The range is larger than the machine: what is poisoned beyond its memory would end the process.
  if (size >= kLarge && size > left()) throw std::bad_alloc();
  for (auto stretch = free_.begin(); stretch != free_.end(); ++stretch) {
    auto [offset, length] = *stretch;
    if (length < size) continue;
    free_.erase(stretch);
    if (length > size) free_[offset + size] = length - size;
    std::memset(begin_ + offset, kPoison, static_cast<size_t>(size));
    live_[offset + kZone] = {bytes, size};
    in_use_ += size;
    return begin_ + offset + kZone;
  }
  throw std::bad_alloc();
}

void DeviceMemory::free(void* memory) {
  if (!memory) return;
  const auto found = live_.find(offset(memory));
  if (found == live_.end()) throw std::logic_error("simt: freed memory that is not allocated");
  int64_t begin = found->first - kZone, length = found->second.size;
  live_.erase(found);
  in_use_ -= length;
  if (length >= kGiveBack) {
    const int64_t page = 4096, first = round_up(begin, page), last = (begin + length) / page * page;
    madvise(begin_ + first, static_cast<size_t>(last - first), MADV_DONTNEED);
  }
  auto next = free_.lower_bound(begin);
  if (next != free_.end() && next->first == begin + length) {
    length += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == begin) {
      before->second += length;
      return;
    }
  }
  free_[begin] = length;
}

int64_t DeviceMemory::left() const { return std::min(bytes_ - in_use_, kernels::available_memory()); }

bool DeviceMemory::live(const void* address, int64_t bytes) const {
  const int64_t at = offset(address);
  auto block = live_.upper_bound(at);
  if (block == live_.begin()) return false;
  --block;
  return at + bytes <= block->first + block->second.bytes;
}

std::string DeviceMemory::describe(const void* address) const {
  const int64_t at = offset(address);
  const auto after = live_.upper_bound(at);
  const auto bytes_of = [](const auto& block) { return text(" of an allocation of ", block.second.bytes, " bytes"); };
  if (after != live_.end() && after->first - at <= kZone)
    return text(after->first - at, " bytes before the start", bytes_of(*after));
  if (after == live_.begin()) return "in device memory that was never allocated";
  const auto& before = *std::prev(after);
  return text(at - before.first - before.second.bytes, " bytes past the end", bytes_of(before));
}

std::string DeviceMemory::overrun() const {
  for (const auto& block : live_) {
    const char *first = begin_ + block.first, *last = first + block.second.bytes;
    const std::string size = text("an allocation of ", block.second.bytes, " bytes");
    if (!poisoned(first - kZone, first)) return "memory before the start of " + size;
    if (!poisoned(last, first - kZone + block.second.size)) return "memory past the end of " + size;
  }
  return {};
}

DeviceMemory& operand_memory() {
  static DeviceMemory& memory = *new DeviceMemory;  // never closed: operands may be as static as it is
  return memory;
}

}  // namespace nanovlm::simt
