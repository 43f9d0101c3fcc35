#include "kernels/simt/words.h"

#include <bit>
#include <string>

#include "kernels/simt/block.h"
#include "kernels/simt/checker.h"

namespace nanovlm::simt {
namespace {

struct ShuffleSlot {
  uint64_t bits, result;
  Shuffle kind;
  int distance, width;
  Where where;
};

// The lane a shuffle reads from: PTX ISA, "shfl.sync", with the clamp and segment that CUDA's width stands for.
int source_lane(const ShuffleSlot& slot, int lane) {
  const int segment = lane & ~(slot.width - 1), last = segment + slot.width - 1;
  switch (slot.kind) {
    case Shuffle::index:
      return segment + (slot.distance & (slot.width - 1));
    case Shuffle::up:
      return lane - slot.distance >= segment ? lane - slot.distance : lane;
    case Shuffle::down:
      return lane + slot.distance <= last ? lane + slot.distance : lane;
    case Shuffle::exclusive_or:
      return (lane ^ slot.distance) <= last ? lane ^ slot.distance : lane;
  }
  return lane;
}

void complete_shuffle(void* const* slots, uint32_t mask, Block& block) {
  for (uint32_t left = mask; left != 0; left &= left - 1) {
    const int lane = std::countr_zero(left);
    ShuffleSlot& slot = *static_cast<ShuffleSlot*>(slots[lane]);
    const int from = source_lane(slot, lane);
    if (from < 0 || from >= kWarpLanes || !(mask >> from & 1))
      block.fail_at(
          block.warp() * kWarpLanes + lane, slot.where,
          text("shuffle: lane ", lane, " reads lane ", from, ", which does not take part: its value is undefined"));
    slot.result = static_cast<const ShuffleSlot*>(slots[from])->bits;
  }
}

const char* name_of(Shuffle kind) {
  constexpr const char* names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
  return names[static_cast<int>(kind)];
}

struct BallotSlot {
  bool predicate;
  uint32_t result;
};

void complete_ballot(void* const* slots, uint32_t mask, Block&) {
  uint32_t votes = 0;
  for (uint32_t left = mask; left != 0; left &= left - 1) {
    const int lane = std::countr_zero(left);
    votes |= static_cast<uint32_t>(static_cast<const BallotSlot*>(slots[lane])->predicate) << lane;
  }
  for (uint32_t left = mask; left != 0; left &= left - 1)
    static_cast<BallotSlot*>(slots[std::countr_zero(left)])->result = votes;
}

void complete_sync_warp(void* const*, uint32_t, Block& block) {
  if (block.checker()) block.checker()->warp_barrier(block.warp());
}

}  // namespace

uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t bits, int distance, int width, Where where) {
  Block& block = *current_block;
  if (width < 1 || width > kWarpLanes || !std::has_single_bit(static_cast<unsigned>(width)))
    block.fail(where, name_of(kind), ": width is ", width, ", but must be a power of two up to 32");
  ShuffleSlot slot{bits, 0, kind, distance, width, where};
  block.meet_warp(name_of(kind), mask, &slot, complete_shuffle, where);
  return slot.result;
}

uint32_t ballot(const char* operation, uint32_t mask, bool predicate, Where where) {
  BallotSlot slot{predicate, 0};
  current_block->meet_warp(operation, mask, &slot, complete_ballot, where);
  return slot.result;
}

void sync_block(Where where) { current_block->meet_block(where); }

void sync_warp(uint32_t mask, Where where) {
  current_block->meet_warp("__syncwarp", mask, nullptr, complete_sync_warp, where);
}

void fence(Where where) {
  current_block->note("__threadfence", where);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (Checker* checker = current_block->checker()) checker->fence();
}

// ---- atomics are real ones, since blocks run on several workers; each lets other threads run, since a thread may be
// spinning on one.

namespace {
template <class T>
void before_atomic(const char* operation, T* address, Where where) {
  Block& block = *current_block;
  block.note(operation, where);
  if (reinterpret_cast<uintptr_t>(address) % sizeof(T) != 0)
    block.fail(where, "misaligned: ", operation, " of ", sizeof(T), " bytes");
  if (Checker* checker = block.checker()) checker->atomic(operation, address, sizeof(T), where);
  block.yield(operation, where);
}

template <class T>
T apply(Atomic kind, T old, T value) {
  switch (kind) {
    case Atomic::add:
      return old + value;
    case Atomic::min:
      return value < old ? value : old;
    case Atomic::max:
      return old < value ? value : old;
    case Atomic::exchange:
      return value;
  }
  return old;
}
}  // namespace

template <class T>
T atomic(Atomic kind, T* address, T value, Where where) {
  constexpr const char* names[] = {"atomicAdd", "atomicMin", "atomicMax", "atomicExch"};
  before_atomic(names[static_cast<int>(kind)], address, where);
  T old, wanted;
  __atomic_load(address, &old, __ATOMIC_RELAXED);
  do wanted = apply(kind, old, value);
  while (!__atomic_compare_exchange(address, &old, &wanted, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
  return old;
}
template int atomic(Atomic, int*, int, Where);
template unsigned atomic(Atomic, unsigned*, unsigned, Where);
template unsigned long long atomic(Atomic, unsigned long long*, unsigned long long, Where);
template float atomic(Atomic, float*, float, Where);

template <class T>
T atomic_compare_exchange(T* address, T expected, T value, Where where) {
  before_atomic("atomicCAS", address, where);
  __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return expected;
}
template int atomic_compare_exchange(int*, int, int, Where);
template unsigned atomic_compare_exchange(unsigned*, unsigned, unsigned, Where);
template unsigned long long atomic_compare_exchange(unsigned long long*, unsigned long long, unsigned long long, Where);

}  // namespace nanovlm::simt
