// What comes before what among the accesses of one block: its barriers, mbarriers, and waits for asynchronous work.
//
// The block's clock counts its synchronisations, and a thread's access is stamped with its reading. A barrier of the
// block or of a warp puts what its threads did until then before what they do next. An mbarrier orders thread by thread
// (vector clocks): who has waited for a phase has seen what the threads that arrived in it had done and seen. What the
// copy engine and the tensor cores do is no thread's doing, not even that of the one that issued it: it is stamped with
// the phase or the group that it counts in, and comes before whoever has waited for that, or has met one who had.
//
// Threads reach shared memory by the generic proxy, the copy engine and wgmma by the async proxy. What a thread has
// done there comes before them only where fence_async_proxy stands somewhere on the way: after the access, in the
// thread itself or in one that it comes before, and before the asynchronous work's issue (PTX ISA, "Causality Order": a
// proxy fence along the base causality path; "Async Proxy" of cp.async.bulk and of wgmma). So fence, barrier, wgmma is
// right, and so is barrier, fence, wgmma if every lane fences. The other way needs none: a wait for asynchronous work
// implies it. Hence two readings of each actor: what has been seen of it, and what of that lies before a fence.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/simt/block.h"

namespace nanovlm::simt {

class Clocks {
 public:
  // Actors are numbered: the block's threads, its warps' tensor cores, the copy engine once for each barrier.
  struct Stamp {
    uint32_t time = 0;
    uint16_t actor = 0;
  };
  using Times = std::vector<uint32_t>;  // by actor; what lies beyond the end is 0
  struct Seen {
    Times all, fenced;  // everything stamped earlier; of threads, what a proxy fence has followed
  };
  // Who acts: a thread, or (thread -1) the tensor cores of a warp, which have seen what all its lanes have.
  struct View {
    int thread, warp;
    const Seen* seen;
  };

  void begin_block(int threads);
  void block_barrier();
  void warp_barrier(int warp);
  void fence_proxy(int thread);

  // mbarriers: made, arrived at, a phase's end, and a wait that found a phase ended.
  void barrier_made(int thread, const void* barrier);
  bool knows(int thread, const void* barrier) const { return before(of(barrier).made, view_of(thread)); }
  void arrived(int thread, const void* barrier);
  void phase_ended(const void* barrier);
  void waited(int thread, const void* barrier) { join(seen_[index(thread)], of(barrier).ended); }
  // A warp has waited for all products before group `groups`.
  void products_done(int warp, uint32_t groups);

  Stamp of_thread(int thread) const { return {clock_, static_cast<uint16_t>(thread)}; }
  Stamp of_copies(const void* barrier) const {  // that count in its current phase
    const size_t number = number_of(barrier);
    return {barriers_[number].phases, copies_at(number)};
  }
  Stamp of_products(int warp, uint32_t group) const { return {group, tensor_cores(warp)}; }

  View view_of(int thread) const { return {thread, thread / kWarpLanes, &seen_[index(thread)]}; }
  View view_of_tensor_cores(int warp);  // valid until the next of these

  bool before(Stamp stamp, const View& view) const {
    if (stamp.actor < threads_) {
      if (stamp.actor == view.thread || stamp.time < block_barrier_) return true;
      if (stamp.actor / kWarpLanes == view.warp && stamp.time < warp_barriers_[view.warp]) return true;
    }
    return earlier(stamp, view.seen->all);
  }
  // Whether asynchronous work issued now comes after that; what is asynchronous itself needs no fence.
  bool fenced(Stamp stamp, const View& view) const {
    return stamp.actor >= threads_ || earlier(stamp, view.seen->fenced);
  }

 private:
  struct Barrier {
    const void* address;
    Stamp made;
    uint32_t phases = 0;   // that have ended
    Seen arriving, ended;  // what a wait for the current phase will have seen, and one for the last
  };

  static size_t index(int i) { return static_cast<size_t>(i); }
  static bool earlier(Stamp stamp, const Times& times) {
    return stamp.actor < times.size() && stamp.time < times[stamp.actor];
  }
  static void join(Times& to, const Times& from);
  static void join(Seen& to, const Seen& from) { join(to.all, from.all), join(to.fenced, from.fenced); }
  static void raise(Times& times, size_t actor, uint32_t time);
  static void meet(Times& common, const Times& other);
  uint16_t tensor_cores(int warp) const { return static_cast<uint16_t>(threads_ + warp); }
  uint16_t copies_at(size_t barrier) const {
    return static_cast<uint16_t>(index(threads_ + (threads_ + kWarpLanes - 1) / kWarpLanes) + barrier);
  }
  size_t number_of(const void* barrier) const;
  const Barrier& of(const void* barrier) const { return barriers_[number_of(barrier)]; }
  Barrier& of(const void* barrier) { return barriers_[number_of(barrier)]; }
  int lanes_end(int warp) const;

  int threads_ = 0;
  uint32_t clock_ = 0;
  uint32_t block_barrier_ = 0, warp_barriers_[kMaxWarps] = {};  // the clock at the last one
  bool asynchronous_ = false;                                   // whether seen_ holds anything
  std::vector<Seen> seen_;                                      // by thread
  std::vector<Barrier> barriers_;
  Seen common_;  // of the view of tensor cores
};

}  // namespace nanovlm::simt
