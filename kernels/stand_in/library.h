// What the stand-in for the CUDA runtime library holds, behind the functions of runtime.cpp: streams as queues of work,
// events, graphs, memory.
#pragma once
#include <omp.h>

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>

#include "kernels/simt/executor.h"
#include "kernels/stand_in/runtime.h"

// A mark in a queue counts as reached once the work before it is done.
struct CUevent_st {
  int64_t recorded = 0, reached = 0;  // how often
  CUstream_st* in = nullptr;          // where it was recorded last
};

namespace nanovlm::stand_in {

struct Work {
  std::function<void(simt::Executor&)> run;  // or, where there is none:
  std::shared_ptr<CUevent_st> event;
  int64_t count = 0;   // of the event's recordings
  bool waits = false;  // for it, instead of marking it
};

}  // namespace nanovlm::stand_in

struct CUgraph_st {
  std::vector<nanovlm::stand_in::Work> works;
};
struct CUgraphExec_st : CUgraph_st {};

struct CUstream_st {
  int64_t number = 0;
  std::deque<nanovlm::stand_in::Work> queue;
  std::unique_ptr<CUgraph_st> recording;
  bool broken = false;  // what it records has been spoilt
};

namespace nanovlm::stand_in {

using Memory = std::map<char*, int64_t>;  // bytes by address

inline int64_t total(const Memory& memory) {
  int64_t bytes = 0;
  for (const auto& block : memory) bytes += block.second;
  return bytes;
}

class Library {
 public:
  Machine machine;
  simt::Executor executor{simt::Options{.workers = omp_get_max_threads()}};
  std::recursive_mutex mutex;
  std::mt19937_64 random{1};
  cudaError_t last = cudaSuccess;  // what cudaGetLastError tells
  std::string stays;               // the error that stays: what the work said
  int64_t calls = 0, streams_made = 0;
  Memory device, pinned;
  std::set<CUstream_st*> streams;
  std::map<CUevent_st*, std::shared_ptr<CUevent_st>> events;
  int64_t graphs = 0, products = 0;

  // Every function that may fail is a call of this.
  template <class F>
  cudaError_t call(F&& f) {
    const std::lock_guard lock(mutex);
    ++calls;
    cudaError_t error = cudaErrorUnknown;
    if (machine.failing_call == 0 || --machine.failing_call > 0) error = stays.empty() ? f() : cudaErrorLaunchFailure;
    if (error != cudaSuccess) last = error;
    if (machine.schedule == Schedule::random) step_at_random();
    return error;
  }

  cudaError_t state() const { return stays.empty() ? cudaSuccess : cudaErrorLaunchFailure; }

  cudaError_t add(CUstream_st* stream, Work work) {
    if (stream->recording) {
      if (!work.run) return spoil(stream);  // an event is not a launch of this graph
      stream->recording->works.push_back(std::move(work));
      return cudaSuccess;
    }
    stream->queue.push_back(std::move(work));
    if (at_once(*stream)) finish(stream);
    return state();
  }

  cudaError_t spoil(CUstream_st* stream) {
    stream->broken = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  // What a recording forbids to its thread: here to all.
  bool spoils_a_recording() {
    bool any = false;
    for (CUstream_st* stream : streams)
      if (stream->recording) spoil(stream), any = true;
    return any;
  }

  void finish(CUstream_st* stream) {
    while (!stream->queue.empty()) step(stream);
  }
  void finish_all() {
    for (CUstream_st* stream : streams) finish(stream);
  }
  void reach(CUevent_st& event, int64_t count) {
    while (event.reached < count) step(event.in);
  }

  bool owns(const Memory& memory, const void* address, size_t bytes) const {
    char* const begin = static_cast<char*>(const_cast<void*>(address));
    auto block = memory.upper_bound(begin);
    if (block == memory.begin()) return false;
    --block;
    return begin + bytes <= block->first + block->second;
  }

 private:
  bool at_once(const CUstream_st& stream) const {
    const bool compute = stream.number % 2 == 0;
    return machine.schedule == Schedule::early ||
           machine.schedule == (compute ? Schedule::copies_late : Schedule::compute_late);
  }

  void step(CUstream_st* stream) {
    const Work work = std::move(stream->queue.front());
    stream->queue.pop_front();
    if (work.run) {
      try {
        if (stays.empty()) work.run(executor);
      } catch (const std::exception& error) {
        stays = error.what();
      }
    } else if (work.waits) {
      reach(*work.event, work.count);
    } else {
      work.event->reached = work.count;
    }
  }

  void step_at_random() {
    for (CUstream_st* stream : streams)
      for (int n = static_cast<int>(random() % 4); n > 0 && !stream->queue.empty(); --n) step(stream);
  }
};

Library& library();  // the process's

}  // namespace nanovlm::stand_in
