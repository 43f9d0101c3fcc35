#include "kernels/simt/block.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <utility>

#include "kernels/simt/checker.h"
#include "kernels/simt/site.h"
#include "kernels/simt/words.h"

namespace nanovlm::simt {
namespace {
constexpr int64_t kSharedArena = 227 * 1024;
constexpr int64_t kStaticSharedLimit = 48 * 1024;  // nvcc's, for declared arrays

std::string text_of(Index i) { return text('(', i.x, ',', i.y, ',', i.z, ')'); }

std::string mask_text(uint32_t mask) {
  char text[16];
  std::snprintf(text, sizeof(text), "0x%08x", mask);
  return text;
}

uint32_t above(int lane) { return lane == kWarpLanes - 1 ? 0 : ~uint32_t{0} << (lane + 1); }
}  // namespace

Block::Block()
    : fibers_(fiber_entry, kMaxThreads), shared_(kSharedArena), threads_(kMaxThreads), copies_(kMaxThreads) {}
Block::~Block() = default;

void Block::run(const Launch& launch, const Options& options, Index index, uint64_t seed, Checker* checker) {
  launch_ = &launch, options_ = &options, checker_ = checker;
  start(index, seed);
  current_block = this;
  if (checker_) checker_->begin_block(*this);
  set_current(pick());
  main_ = {};  // the host thread may be another each time
  Fiber* fiber = threads_[current_].fiber = fibers_.take();
  switch_fiber(main_, *fiber);
  current_block = nullptr;

  if (!error_)
    if (const SharedKey* key = shared_.overrun())
      error_ = std::make_unique<KernelError>(
          launch.name, text_of(index_), "unknown", text(key->where),
          text("out of bounds: the red zone of shared array '", key->name, "' was written"));
  if (error_) {
    fibers_.restart_all();
    throw KernelError(*std::exchange(error_, nullptr));
  }
  if (checker_) checker_->end_block();
  static_shared_ = std::max(static_shared_, shared_.static_bytes());
}

void Block::add_counts(KernelReport& report) {
  report.collectives += std::exchange(collectives_, 0);
  report.mma_flops += std::exchange(mma_flops_, 0);
  report.static_shared = std::max(report.static_shared, std::exchange(static_shared_, 0));
}

void Block::start(Index index, uint64_t seed) {
  index_ = index, random_ = seed;
  const LaunchShape& shape = launch_->shape;
  count_ = static_cast<int>(shape.block.count());
  in_one_row_ = shape.block.x == count_;
  warps_ = (count_ + kWarpLanes - 1) / kWarpLanes;
  at_barrier_ = returned_ = since_progress_ = 0;
  calls_at_tick_ = -1;
  in_hook_ = false;  // a block that failed in a hook never left it
  for (int t = 0; t < count_; ++t) {
    Thread& thread = threads_[t];
    thread.fiber = nullptr, thread.operation = "", thread.where = {};
    copies_[t].copies.clear(), copies_[t].groups = 0;
  }
  for (int w = 0; w < warps_; ++w) {
    const int lanes = std::min(kWarpLanes, count_ - w * kWarpLanes);
    ready_[w] = ~uint32_t{0} >> (kWarpLanes - lanes);
    absent_[w] = gone_[w] = ~ready_[w];
    meeting_[w] = 0;
  }
  ready_warps_ = ~uint32_t{0} >> (kMaxWarps - warps_);
  current_ = count_ - 1;  // so that the first in turn is thread 0
  for (int w = 0; w < warps_; ++w) priorities_[w] = w;
  draw_priorities();
  shared_.begin_block();
  async_work_.reset();
  deadline_ = {};

  blockIdx = {index.x, index.y, index.z};
  blockDim = kernels::dim3(shape.block.x, shape.block.y, shape.block.z);
  gridDim = kernels::dim3(shape.grid.x, shape.grid.y, shape.grid.z);
}

Index Block::thread_index(int thread) const {
  const unsigned n = thread, x = launch_->shape.block.x, y = launch_->shape.block.y;
  return {n % x, n / x % y, n / x / y};
}

// ---- who runs

void Block::set_current(int thread) {
  current_ = thread;
  if (in_one_row_) {  // spares a switch three divisions
    threadIdx = {static_cast<unsigned>(thread), 0, 0};
  } else {
    const Index i = thread_index(thread);
    threadIdx = {i.x, i.y, i.z};
  }
}

void Block::fiber_entry(boost::context::detail::transfer_t from) {
  Block& block = *current_block;
  arrive(*block.threads_[block.current_].fiber, from);
  block.fiber_loop();
}

void Block::fiber_loop() {
  for (;;) {
    Fiber* self = threads_[current_].fiber;
    int next = -1;
    try {
      launch_->thread_body(launch_->arguments);
      next = retire_current();
    } catch (const KernelError& e) {
      error_ = std::make_unique<KernelError>(e);
    } catch (const std::exception& e) {
      error_ = error_at(current_, "?", text("the kernel threw: ", e.what()));
    }
    if (next >= 0 && !threads_[next].fiber) {
      threads_[next].fiber = self;
      set_current(next);
      continue;
    }
    fibers_.give_back(self);
    if (next >= 0) {
      set_current(next);
      switch_fiber(*self, *threads_[next].fiber);
    } else {
      switch_fiber(*self, main_);
    }
  }
}

// The running thread has returned. The next one, or -1 at the end of the block.
int Block::retire_current() {
  const int warp = current_ / kWarpLanes;
  const uint32_t bit = uint32_t{1} << lane();
  gone_[warp] |= bit;
  ++returned_, ++calls_;
  since_progress_ = 0;
  make_waiting();
  if (at_barrier_ > 0) fail_divergent(-1);
  for (uint32_t left = meeting_[warp]; left != 0; left &= left - 1) {
    const int t = warp * kWarpLanes + std::countr_zero(left);
    if (threads_[t].mask & bit)
      fail_at(t, threads_[t].where, text(threads_[t].operation, " waits for lane ", lane(), ", which has returned"));
  }
  if (returned_ == count_) return -1;
  const int next = pick();
  if (next < 0) fail_deadlock();
  return next;
}

// Stops the running thread, which waits or yields, and runs another.
void Block::suspend() {
  const int next = pick();
  if (next < 0) fail_deadlock();
  if (next == current_) return;
  Fiber* self = threads_[current_].fiber;
  Thread& to = threads_[next];
  if (!to.fiber) to.fiber = fibers_.take();
  set_current(next);
  switch_fiber(*self, *to.fiber);
}

void Block::make_waiting() {
  const int warp = current_ / kWarpLanes;
  ready_[warp] &= ~(uint32_t{1} << lane());
  if (ready_[warp] == 0) ready_warps_ &= ~(uint32_t{1} << warp);
}

uint64_t Block::random() {  // splitmix64
  uint64_t z = random_ += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

void Block::draw_priorities() {
  if (options_->order != Order::priorities) return;
  for (int i = warps_ - 1; i > 0; --i) std::swap(priorities_[i], priorities_[random() % static_cast<uint64_t>(i + 1)]);
  lanes_descend_ = random() & 1;
}

int Block::pick_first_after(int thread) const {
  const int warp = thread / kWarpLanes;
  if (const uint32_t lanes = ready_[warp] & above(thread % kWarpLanes))
    return warp * kWarpLanes + std::countr_zero(lanes);
  const uint32_t later = ready_warps_ & above(warp);
  const int next = std::countr_zero(later ? later : ready_warps_);
  return next * kWarpLanes + std::countr_zero(ready_[next]);
}

// A ready thread, or -1.
int Block::pick() {
  if (ready_warps_ == 0) return -1;
  const auto highest = [&](int warp) { return warp * kWarpLanes + kWarpLanes - 1 - std::countl_zero(ready_[warp]); };
  const auto lowest = [&](int warp) { return warp * kWarpLanes + std::countr_zero(ready_[warp]); };
  switch (options_->order) {
    case Order::fifo:
      return pick_first_after(current_);
    case Order::lifo: {
      const int warp = current_ / kWarpLanes;
      return highest(ready_[warp] ? warp : kWarpLanes - 1 - std::countl_zero(ready_warps_));
    }
    case Order::random: {
      uint32_t warps = ready_warps_;
      for (uint64_t skip = random() % static_cast<uint64_t>(std::popcount(warps)); skip > 0; --skip) warps &= warps - 1;
      const int warp = std::countr_zero(warps);
      uint32_t lanes = ready_[warp];
      for (uint64_t skip = random() % static_cast<uint64_t>(std::popcount(lanes)); skip > 0; --skip) lanes &= lanes - 1;
      return warp * kWarpLanes + std::countr_zero(lanes);
    }
    case Order::priorities: {
      const int* warp = priorities_;
      while (ready_[*warp] == 0) ++warp;
      return lanes_descend_ ? highest(*warp) : lowest(*warp);
    }
  }
  return -1;
}

// ---- meetings

void Block::meet_block(Where where) {
  note("__syncthreads", where);
  if (returned_ > 0) fail_divergent(current_);
  if (at_barrier_ == 0) first_at_barrier_ = current_;
  if (const Thread& first = threads_[first_at_barrier_]; !(first.where == where))
    fail(where, "divergent barrier: __syncthreads here, but thread ", text_of(thread_index(first_at_barrier_)),
         " of the block is at the one at ", first.where);
  if (++at_barrier_ < count_) {
    make_waiting();
    suspend();
    return;
  }
  at_barrier_ = 0, since_progress_ = 0;
  collectives_ += warps_;
  for (int w = 0; w < warps_; ++w) ready_[w] = ~absent_[w];
  ready_warps_ = ~uint32_t{0} >> (kMaxWarps - warps_);
  draw_priorities();
  if (checker_) checker_->block_barrier();
}

void Block::check_meeting(const char* operation, uint32_t mask, Where where) {
  const int warp = current_ / kWarpLanes, self = lane();
  if (!(mask >> self & 1)) fail(where, operation, ": lane ", self, " is not in its own mask ", mask_text(mask));
  if (const uint32_t returned = mask & gone_[warp] & ~absent_[warp])
    fail(where, operation, " waits for lane ", std::countr_zero(returned), ", which has returned (mask ",
         mask_text(mask), ")");
  if (const uint32_t peers = mask & meeting_[warp]) {
    const Thread& peer = threads_[warp * kWarpLanes + std::countr_zero(peers)];
    if (peer.mask != mask || peer.operation != operation || !(peer.where == where))
      fail(where, operation, " with mask ", mask_text(mask), " meets lane ", std::countr_zero(peers), " in ",
           peer.operation, " with mask ", mask_text(peer.mask), " at ", peer.where);
  }
}

void Block::meet_warp(const char* operation, uint32_t mask, void* slot, Complete complete, Where where) {
  const int warp = current_ / kWarpLanes;
  check_meeting(operation, mask, where);
  note(operation, where);
  threads_[current_].mask = mask;
  slots_[current_] = slot;
  const uint32_t here = meeting_[warp] | uint32_t{1} << lane(), expected = mask & ~absent_[warp];
  if ((here & expected) != expected) {
    meeting_[warp] = here;
    make_waiting();
    suspend();
    return;
  }
  complete(slots_ + warp * kWarpLanes, expected, *this);
  if (checker_) checker_->warp_met(warp);
  meeting_[warp] = here & ~expected;
  ready_[warp] |= expected;
  ready_warps_ |= uint32_t{1} << warp;
  since_progress_ = 0;
  ++collectives_;
}

void Block::yield(const char* operation, Where where) {
  note(operation, where);
  if (stalled()) fail(where, stalled_text());
  const int warp = current_ / kWarpLanes;
  if (options_->order == Order::priorities)  // the least urgent from now on, or a spin would keep all others out
    std::rotate(std::find(priorities_, priorities_ + warps_, warp),
                std::find(priorities_, priorities_ + warps_, warp) + 1, priorities_ + warps_);
  const int next = options_->order == Order::random ? pick() : pick_first_after(current_);
  if (next == current_) return;
  Fiber* self = threads_[current_].fiber;
  if (!threads_[next].fiber) threads_[next].fiber = fibers_.take();
  set_current(next);
  switch_fiber(*self, *threads_[next].fiber);
}

// Only meetings and returns count as getting further, so a thread that spins on an atomic runs into this.
bool Block::stalled() {
  constexpr int kBetweenLooks = 4096;
  if (++since_progress_ % kBetweenLooks != 0) return false;
  const auto now = std::chrono::steady_clock::now();
  if (since_progress_ == kBetweenLooks)
    deadline_ = now + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                          std::chrono::duration<double>(options_->watchdog_seconds));
  return now > deadline_;
}

std::string Block::stalled_text() const {
  return text("no thread of the block has got any further for ", options_->watchdog_seconds,
              " s: a kernel must not wait for another block");
}

void Block::tick(const void* instruction) {
  if (in_hook_) return;
  if (std::exchange(calls_at_tick_, calls_) != calls_) return;
  std::unique_ptr<KernelError> error = error_at(current_, line_of(instruction), stalled_text());
  abandon(std::move(error));
}

// ---- shared memory and copies

char* Block::declare_shared(const SharedKey& key, int64_t bytes) {
  if (const SharedKey* other = shared_.dynamic(); key.dynamic && other && other != &key)
    fail(key.where, "shared memory: '", key.name, "' and '", other->name,
         "' are both GPU_SHARED_DYNAMIC, but a block has one such array: on a GPU they are the same bytes");
  char* memory = shared_.declare(key, bytes);
  const int64_t dynamic = launch_->shape.shared_bytes, fixed = shared_.static_bytes();
  if (!memory || fixed > kStaticSharedLimit || fixed + dynamic > options_->shared_limit)
    fail(key.where, "shared memory: array '", key.name, "' brings the block to ", fixed, " declared bytes (limit ",
         kStaticSharedLimit, ") and ", dynamic, " dynamic ones (limit of both ", options_->shared_limit, ")");
  return memory;
}

void Block::issue_copy(const AsyncCopy& copy, Where where) {
  note("cp_async", where);
  CopyQueue& queue = copies_[current_];
  queue.copies.push_back(copy);
  queue.copies.back().group = queue.groups;
  if (checker_) checker_->copy_issued(copy, where);
  if (options_->copies == Copies::early) perform(copy);
}

void Block::commit_copies(Where where) {
  note("cp_async_commit", where);
  ++copies_[current_].groups;
}

void Block::wait_copies(int newest_groups_left, Where where) {
  note("cp_async_wait", where);
  CopyQueue& queue = copies_[current_];
  auto copy = queue.copies.begin();
  for (; copy != queue.copies.end() && copy->group + static_cast<uint32_t>(newest_groups_left) < queue.groups; ++copy) {
    if (options_->copies == Copies::late) perform(*copy);
    if (checker_) checker_->copy_done(*copy, where);
  }
  queue.copies.erase(queue.copies.begin(), copy);
}

void Block::perform(const AsyncCopy& copy) {
  std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.valid_bytes));
  std::memset(static_cast<char*>(copy.to) + copy.valid_bytes, 0, static_cast<size_t>(copy.bytes - copy.valid_bytes));
}

// ---- faults

std::unique_ptr<KernelError> Block::error_at(int thread, const std::string& where, const std::string& what) const {
  return std::make_unique<KernelError>(launch_->name, text_of(index_), text_of(thread_index(thread)), where, what);
}

void Block::fail_at(int thread, Where where, const std::string& what) { throw *error_at(thread, text(where), what); }

void Block::abandon(std::unique_ptr<KernelError> error) {
  error_ = std::move(error);
  switch_fiber(*threads_[current_].fiber, main_);
  __builtin_unreachable();  // nobody switches back: run() starts all fibers anew
}

// Some threads wait at a barrier that others have left the kernel without meeting.
void Block::fail_divergent(int waiting) {
  if (waiting < 0) waiting = first_at_barrier_;
  fail_at(
      waiting, threads_[waiting].where,
      text("divergent barrier: __syncthreads, but ", returned_, " of the block's ", count_, " threads have returned"));
}

// Nobody can run: some wait at the block's barrier for others that wait at a warp's meeting, or lanes wait for each
// other.
void Block::fail_deadlock() {
  int stuck = 0;
  for (int w = 0; w < warps_; ++w)
    if (meeting_[w]) stuck = w * kWarpLanes + std::countr_zero(meeting_[w]);
  const Thread& thread = threads_[stuck];
  const int warp = stuck / kWarpLanes;
  const int missing = std::countr_zero(thread.mask & ~absent_[warp] & ~meeting_[warp]);
  std::string reason;
  if (missing < kWarpLanes) {
    const Thread& other = threads_[warp * kWarpLanes + missing];
    reason = text(" waits for lane ", missing, ", which waits in ", other.operation, " at ", other.where);
  }
  fail_at(stuck, thread.where, text("deadlock: ", thread.operation, " with mask ", mask_text(thread.mask), reason));
}

}  // namespace nanovlm::simt
