// Launches that are recorded once and started again as a whole: on cuda a CUDA graph.
//
// A graph holds the addresses that its launches were given, so they must stay what they are. Recorded work takes its
// memory from a pool of the device in which nothing outlives it, and is rehearsed first: run, but not yet recorded.
// Once a rehearsal has left the pool as large as it was, the next run finds the same free blocks, so it gets the same
// addresses and never asks the driver for memory, which a capture does not allow. Recordings share the pool: they run
// one after another, and nothing else writes there. What they read and what they leave lies outside.
//
// On cpu and simt the work is run again instead, and it is checked that its memory lay where it did: what a graph
// relies on, tested without a GPU.
#pragma once
#include <functional>
#include <memory>
#include <optional>

#include "engine/device.h"

namespace nanovlm {

class Recording {
 public:
  // Runs `work`, which may do nothing but launch. True where the memory it takes is settled: it may be recorded, as
  // long as no other rehearsal has returned false since.
  static bool rehearse(const Device& device, const std::function<void()>& work);

  // Records what `work` launches, without running it. Errors, on cuda: it takes more memory than its rehearsal, it does
  // something else than launch, the driver refuses, NANOVLM_DEBUG is 2 or more, where every launch is waited for.
  Recording(Device device, std::function<void()> work);
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  // Returns at once on cuda. Error: on cpu and simt, the memory lay elsewhere.
  void replay();

 private:
  struct Graph;

  Device device_;
  std::function<void()> work_;
  std::optional<uint64_t> trail_;  // on cpu and simt: of the memory that the launches were given
  std::unique_ptr<Graph> graph_;   // on cuda
};

}  // namespace nanovlm
