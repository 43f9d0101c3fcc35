#include "kernels/simt/clocks.h"

#include <algorithm>
#include <stdexcept>

namespace nanovlm::simt {

void Clocks::begin_block(int threads) {
  threads_ = threads;
  clock_ = block_barrier_ = 0;
  std::fill(std::begin(warp_barriers_), std::end(warp_barriers_), 0);
  asynchronous_ = false;
  seen_.assign(index(threads), {});
  barriers_.clear();
}

void Clocks::join(Times& to, const Times& from) {
  if (to.size() < from.size()) to.resize(from.size());
  for (size_t actor = 0; actor < from.size(); ++actor) to[actor] = std::max(to[actor], from[actor]);
}

void Clocks::raise(Times& times, size_t actor, uint32_t time) {
  if (times.size() <= actor) times.resize(actor + 1);
  times[actor] = std::max(times[actor], time);
}

void Clocks::meet(Times& common, const Times& other) {
  common.resize(std::min(common.size(), other.size()));
  for (size_t actor = 0; actor < common.size(); ++actor) common[actor] = std::min(common[actor], other[actor]);
}

int Clocks::lanes_end(int warp) const { return std::min(threads_, (warp + 1) * kWarpLanes); }

void Clocks::block_barrier() {
  block_barrier_ = ++clock_;
  if (!asynchronous_) return;
  Seen all;
  for (const Seen& seen : seen_) join(all, seen);
  std::fill(seen_.begin(), seen_.end(), all);
}

void Clocks::warp_barrier(int warp) {
  warp_barriers_[warp] = ++clock_;
  if (!asynchronous_) return;
  Seen all;
  for (int t = warp * kWarpLanes; t < lanes_end(warp); ++t) {
    join(all, seen_[index(t)]);
    raise(all.all, index(t), clock_);  // goes on with what one of them releases
  }
  for (int t = warp * kWarpLanes; t < lanes_end(warp); ++t) seen_[index(t)] = all;
}

void Clocks::fence_proxy(int thread) {
  asynchronous_ = true;
  Seen& seen = seen_[index(thread)];
  join(seen.fenced, seen.all);
  const int warp = thread / kWarpLanes;
  for (int t = 0; t < threads_; ++t) raise(seen.fenced, index(t), block_barrier_);
  for (int t = warp * kWarpLanes; t < lanes_end(warp); ++t) raise(seen.fenced, index(t), warp_barriers_[warp]);
  raise(seen.fenced, index(thread), ++clock_);
}

size_t Clocks::number_of(const void* barrier) const {
  for (size_t i = 0; i < barriers_.size(); ++i)
    if (barriers_[i].address == barrier) return i;
  throw std::logic_error("simt: a barrier that nobody has made");
}

void Clocks::barrier_made(int thread, const void* barrier) {
  asynchronous_ = true;
  const Stamp now = of_thread(thread);
  for (Barrier& made : barriers_)
    if (made.address == barrier) {
      made.made = now, made.arriving = {};  // phases go on counting: old stamps stay old
      return;
    }
  barriers_.push_back({barrier, now, 0, {}, {}});
}

void Clocks::arrived(int thread, const void* barrier) {
  Seen& arriving = of(barrier).arriving;
  join(arriving, seen_[index(thread)]);
  raise(arriving.all, index(thread), ++clock_);
}

void Clocks::phase_ended(const void* barrier) {
  const size_t number = number_of(barrier);
  Barrier& ended = barriers_[number];
  join(ended.ended, ended.arriving);
  ended.arriving = {};
  raise(ended.ended.all, copies_at(number), ++ended.phases);
}

void Clocks::products_done(int warp, uint32_t groups) {
  asynchronous_ = true;
  for (int t = warp * kWarpLanes; t < lanes_end(warp); ++t) raise(seen_[index(t)].all, tensor_cores(warp), groups);
}

Clocks::View Clocks::view_of_tensor_cores(int warp) {
  common_ = seen_[index(warp * kWarpLanes)];
  for (int t = warp * kWarpLanes + 1; t < lanes_end(warp); ++t) {
    meet(common_.all, seen_[index(t)].all);
    meet(common_.fenced, seen_[index(t)].fenced);
  }
  return {-1, warp, &common_};
}

}  // namespace nanovlm::simt
