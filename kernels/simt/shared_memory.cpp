#include "kernels/simt/shared_memory.h"

#include <cstring>
#include <new>

#include "kernels/simt/block.h"

namespace nanovlm::simt {
namespace {
// Arrays start on 128-byte lines as a GPU's banks do, with at least a line of red zone on both sides.
constexpr int64_t kLine = 128, kZone = 128;
constexpr int64_t kMaxArrays = 64;

int64_t round_up(int64_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

bool poisoned(const char* begin, const char* end) {
  for (; begin < end; ++begin)
    if (static_cast<uint8_t>(*begin) != kPoison) return false;
  return true;
}
}  // namespace

SharedMemory::SharedMemory(int64_t capacity)
    : capacity_(round_up(capacity) + kMaxArrays * (kLine + kZone)),
      memory_(static_cast<char*>(operator new[](static_cast<size_t>(capacity_), std::align_val_t(kLine)))) {}

void SharedMemory::Free::operator()(char* memory) const { operator delete[](memory, std::align_val_t(kLine)); }

char* SharedMemory::declare(const SharedKey& key, int64_t bytes) {
  for (const SharedArrayRecord& array : arrays_)
    if (array.key == &key) return array.begin;
  const int64_t begin = used_ + kZone, end = begin + round_up(bytes) + kZone;
  if (end > capacity_) return nullptr;
  std::memset(memory_.get() + used_, kPoison, static_cast<size_t>(end - used_));
  used_ = end - kZone;  // the next array's zone is this one's
  arrays_.push_back({&key, memory_.get() + begin, bytes});
  return arrays_.back().begin;
}

const SharedKey* SharedMemory::overrun() const {
  for (const SharedArrayRecord& array : arrays_) {
    const char* end = array.begin + array.bytes;
    if (!poisoned(array.begin - kZone, array.begin) || !poisoned(end, array.begin + round_up(array.bytes) + kZone))
      return array.key;
  }
  return nullptr;
}

const SharedArrayRecord* SharedMemory::find(const void* address) const {
  for (const SharedArrayRecord& array : arrays_)
    if (address >= array.begin && address < array.begin + array.bytes) return &array;
  return nullptr;
}

const SharedKey* SharedMemory::dynamic() const {
  for (const SharedArrayRecord& array : arrays_)
    if (array.key->dynamic) return array.key;
  return nullptr;
}

int64_t SharedMemory::static_bytes() const {
  int64_t sum = 0;
  for (const SharedArrayRecord& array : arrays_) sum += array.key->dynamic ? 0 : array.bytes;
  return sum;
}

void fail_index(const char* array, int64_t index, int64_t size, Where where) {
  current_block->fail(where, "out of bounds: index ", index, " of shared array '", array, "', which has ", size);
}

int64_t dynamic_shared_bytes() { return current_block->launch().shape.shared_bytes; }

char* declare_shared(const SharedKey& key, int64_t bytes) { return current_block->declare_shared(key, bytes); }

}  // namespace nanovlm::simt
