// Ends a kernel that computes on without ever calling the executor, such as a loop that waits for another block's
// store.
//
// A timer of the worker's own processor time raises SIGVTALRM there. Where the block has made no call since the last
// one, the handler abandons it: it cannot be inside the executor or the C library then, so leaving a signal handler by
// a switch of fibers is safe.
#pragma once
#include <ctime>

#include "kernels/simt/block.h"

namespace nanovlm::simt {

// Watches the block that this host thread runs, while it lives.
class Watchdog {
 public:
  explicit Watchdog(double seconds);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  timer_t timer_;
};

}  // namespace nanovlm::simt
