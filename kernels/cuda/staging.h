// Host memory on its way to a GPU: a ring of pinned memory with a twin on the device.
//
// A piece is copied into the ring by the host, from there into the twin by the copy stream while kernels still run, and
// from the twin to its place by the compute stream, in order with the kernels. So a batch crosses the bus while the
// step before it computes, although its place may be memory that this step still uses.
#pragma once
#include <cstddef>
#include <deque>
#include <memory>
#include <vector>

#include "kernels/cuda/check.h"

namespace nanovlm::cuda {

class Staging {
 public:
  Staging(cudaStream_t compute, cudaStream_t copies);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // `from` may be changed once this returns.
  void upload(void* to, const void* from, size_t bytes);

 private:
  struct Piece {
    size_t begin, end;  // its bytes of the ring
    Event placed;       // recorded once they are free again
  };

  void upload_piece(char* to, const char* from, size_t bytes);
  size_t make_room(size_t bytes);  // returns where they begin
  void retire_oldest();            // waits until it is placed

  struct FreePinned {
    void operator()(char* p) const { cudaFreeHost(p); }
  };
  struct FreeDevice {
    void operator()(char* p) const { cudaFree(p); }
  };

  cudaStream_t compute_, copies_;
  std::unique_ptr<char, FreePinned> pinned_;
  std::unique_ptr<char, FreeDevice> twin_;
  Event copied_;
  std::deque<Piece> pieces_;  // oldest first
  std::vector<Event> spare_events_;
  size_t next_ = 0;  // where the next piece begins, if there is room up to the end
};

}  // namespace nanovlm::cuda
