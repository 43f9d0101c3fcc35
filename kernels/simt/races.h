// Finds accesses of two threads to the same bytes that nothing orders: shared and global memory alike.
//
// An access is stamped with its block and with when it was (clocks.h): within a block, barriers and waits are the only
// order; shuffles and tensor-core instructions are none. Blocks of one launch are unordered, but for a fence and an
// atomic before the other's atomic at the same address. Each cell of two bytes keeps its last write and two reads.
// Asynchronous work in shared memory must also find a proxy fence between a thread's access and its own. As the manual
// has it that holds of reads too, which a bulk copy overwrites: pipelines that leave it to the mbarrier alone are
// named.
#pragma once
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "kernels/simt/block.h"
#include "kernels/simt/clocks.h"
#include "kernels/simt/requests.h"
#include "kernels/simt/site.h"

namespace nanovlm::simt {

class Races {
 public:
  struct Conflict {
    bool found = false;
    bool before_wrote = false, now_wrote = false;
    SiteId before = 0;
    int thread = 0;  // of the earlier access, in its block
    bool same_block = false;
    bool unfenced = false;  // ordered, but for the proxy fence
  };

  void begin_launch() { first_run_ = run_ + 1, releases_.clear(); }
  void begin_block(int threads);
  Clocks& clocks() { return clocks_; }
  void fence(int thread) { fenced_[static_cast<size_t>(thread)] = true; }
  // Orders this block after the blocks that released at `address`, and releases what this thread's fence covered.
  void synchronise(int thread, const void* address);

  // What `thread` does or has others do, as seen by `view` and stamped `when`.
  struct Actor {
    int thread;
    Clocks::View view;
    Clocks::Stamp when;
    bool asynchronous = false;
  };
  Actor thread(int thread) const { return {thread, clocks_.view_of(thread), clocks_.of_thread(thread)}; }
  // What a thread has the copy engine do, counted at `barrier`, and a warp its tensor cores. Valid until the next one.
  Actor copy_engine(int thread, const void* barrier) const {
    return {thread, clocks_.view_of(thread), clocks_.of_copies(barrier), true};
  }
  Actor tensor_cores(int thread, int warp, uint32_t group) {
    return {thread, clocks_.view_of_tensor_cores(warp), clocks_.of_products(warp, group), true};
  }

  // Shared memory is another block's no more once that block has ended.
  Conflict access(const Actor& actor, const Access& access, bool atomic, SiteId site);

 private:
  struct Stamp {
    uint32_t run = 0;  // number of the block among all that ran; 0 is none
    Clocks::Stamp when;
    SiteId site = 0;
    uint16_t thread = 0;
    uint8_t bytes = 0;  // which of the cell's two
    bool atomic = false;
  };
  struct Cell {
    Stamp write, reads[2];
  };
  static constexpr uintptr_t kCellBytes = 2, kPageBytes = 4096;
  struct Page {
    Cell cells[kPageBytes / kCellBytes];
  };

  Page& page(uintptr_t address);
  bool ordered(const Stamp& before, const Clocks::View& view, bool shared) const;

  uint32_t run_ = 0, first_run_ = 1;
  Clocks clocks_;
  std::vector<bool> fenced_ = std::vector<bool>(kMaxThreads);
  std::vector<bool> acquired_;  // by run - first_run_
  std::unordered_map<const void*, std::vector<uint32_t>> releases_;
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages_;
  uintptr_t last_number_ = ~uintptr_t{0};
  Page* last_page_ = nullptr;
};

}  // namespace nanovlm::simt
