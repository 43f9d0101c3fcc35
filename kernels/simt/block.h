// One worker of the executor: runs the threads of one CUDA block after another, each thread a fiber.
//
// A thread runs until it meets others (__syncthreads, a warp collective), yields (an atomic) or returns; then the
// options' order chooses who runs next. A fiber whose thread has returned takes up the next thread without a switch, so
// a kernel that never synchronises costs no switches. The thread that arrives last does the work of a collective for
// all lanes, which wait with their arguments on their stacks.
#pragma once
#include <bit>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/simt/executor.h"
#include "kernels/simt/fiber.h"
#include "kernels/simt/shared_memory.h"
#include "kernels/simt/where.h"

namespace nanovlm::simt {

class Checker;
struct AsyncWork;  // hopper.cpp

constexpr int kWarpLanes = 32, kMaxThreads = 1024, kMaxWarps = kMaxThreads / kWarpLanes;

// A global-to-shared copy that has been issued and not yet waited for.
struct AsyncCopy {
  void* to;
  const void* from;
  int bytes, valid_bytes;  // the rest is written as zeros
  uint32_t group;
};

// What a switch touches of a thread, in one cache line.
struct alignas(64) Thread {
  Fiber* fiber = nullptr;      // null until it first runs
  const char* operation = "";  // what it last called in the executor, and where
  Where where;
  uint32_t mask = 0;  // whom it meets, for a warp meeting
};

// A thread's copies under way, oldest first.
struct CopyQueue {
  std::vector<AsyncCopy> copies;
  uint32_t groups = 0;  // committed so far
};

class Block {
 public:
  Block();
  ~Block();

  // Runs one block of a launch to its end. Throws KernelError; the block's fibers are then abandoned.
  void run(const Launch& launch, const Options& options, Index index, uint64_t seed, Checker* checker);

  // Adds what the blocks since the last call have counted.
  void add_counts(KernelReport& report);

  // ---- called by the running thread
  int thread() const { return current_; }
  int warp() const { return current_ / kWarpLanes; }
  int lane() const { return current_ % kWarpLanes; }
  void meet_block(Where where);

  // Waits for every lane in `mask` and calls complete(slots, mask, context) once, on the last of them to arrive, with
  // each lane's slot.
  using Complete = void (*)(void* const* slots, uint32_t mask, Block& block);
  void meet_warp(const char* operation, uint32_t mask, void* slot, Complete complete, Where where);

  void yield(const char* operation, Where where);  // lets others run: called by atomics
  void issue_copy(const AsyncCopy& copy, Where where);
  void commit_copies(Where where);
  void wait_copies(int newest_groups_left, Where where);

  char* declare_shared(const SharedKey& key, int64_t bytes);

  // Ends the block with an error, by an exception that the fiber's own loop catches.
  template <class... Parts>
  [[noreturn]] void fail(Where where, const Parts&... parts) {
    fail_at(current_, where, text(parts...));
  }
  [[noreturn]] void fail_at(int thread, Where where, const std::string& what);
  // The same for callers that no exception may leave, such as access hooks: the fiber is left where it stands, and what
  // its frames own is lost.
  [[noreturn]] void abandon(std::unique_ptr<KernelError> error);
  std::unique_ptr<KernelError> error_at(int thread, const std::string& where, const std::string& what) const;

  // What the running thread is about to do, for reports.
  void note(const char* operation, Where where) {
    threads_[current_].operation = operation, threads_[current_].where = where;
    ++calls_;
  }
  // While an access hook runs, which may be allocating, or looking up a line for a report, the watchdog's signal must
  // not abandon the block; the hook itself looks whether the block has stalled.
  void enter_hook() { in_hook_ = true; }
  void leave_hook() { in_hook_ = false; }
  // Counts atomics or accesses, and tells whether the block has done nothing else for the watchdog's time.
  bool stalled();
  std::string stalled_text() const;
  // Called by the watchdog's signal, with the instruction it interrupted.
  void tick(const void* instruction);

  void count_mma(int64_t flops) { mma_flops_ += flops; }
  int warps() const { return warps_; }
  uint32_t lanes() const { return ~absent_[warp()]; }  // of the running thread's warp
  int lanes_in_warp() const { return kWarpLanes - std::popcount(absent_[warp()]); }

  SharedMemory& shared() { return shared_; }
  Checker* checker() { return checker_; }
  const Options& options() const { return *options_; }
  std::shared_ptr<AsyncWork>& async_work() { return async_work_; }  // dropped when a block starts
  const Launch& launch() const { return *launch_; }
  Index index() const { return index_; }
  Index thread_index(int thread) const;
  bool on_a_fiber(const void* address) const { return fibers_.holds(address); }

 private:
  static void fiber_entry(boost::context::detail::transfer_t from);
  void fiber_loop();
  void start(Index index, uint64_t seed);
  void set_current(int thread);
  void suspend();
  int retire_current();
  int pick();
  int pick_first_after(int thread) const;
  void make_waiting();
  void draw_priorities();
  void check_meeting(const char* operation, uint32_t mask, Where where);
  [[noreturn]] void fail_divergent(int waiting_thread);
  [[noreturn]] void fail_deadlock();
  void perform(const AsyncCopy& copy);
  uint64_t random();

  FiberPool fibers_;
  Fiber main_;
  SharedMemory shared_;
  std::vector<Thread> threads_;
  std::vector<CopyQueue> copies_;  // by thread
  std::shared_ptr<AsyncWork> async_work_;

  const Launch* launch_ = nullptr;
  const Options* options_ = nullptr;
  Checker* checker_ = nullptr;
  Index index_ = {};
  int count_ = 0, warps_ = 0;
  int current_ = 0;
  int at_barrier_ = 0, returned_ = 0;
  int first_at_barrier_ = 0;          // the thread that waits there longest
  bool in_one_row_ = false;           // the block has no y and z
  uint32_t ready_warps_ = 0;          // warps with a ready lane
  uint32_t ready_[kMaxWarps] = {};    // ready lanes
  uint32_t meeting_[kMaxWarps] = {};  // lanes at a warp meeting
  uint32_t gone_[kMaxWarps] = {};     // lanes that have returned, or that the block does not have
  uint32_t absent_[kMaxWarps] = {};   // lanes that the block does not have
  void* slots_[kMaxThreads] = {};     // what lanes bring to a meeting
  int priorities_[kMaxWarps] = {};    // warps, the most urgent first
  bool lanes_descend_ = false;
  uint64_t random_ = 0;
  int64_t calls_ = 0, calls_at_tick_ = -1;  // into the executor; written and read by the same host thread
  volatile bool in_hook_ = false;
  int since_progress_ = 0;  // atomics or accesses since a thread last met others or returned
  int64_t collectives_ = 0, mma_flops_ = 0, static_shared_ = 0;
  std::chrono::steady_clock::time_point deadline_;
  std::unique_ptr<KernelError> error_;
};

// The block that this host thread is running; null outside kernels.
inline constinit thread_local Block* current_block = nullptr;

}  // namespace nanovlm::simt
