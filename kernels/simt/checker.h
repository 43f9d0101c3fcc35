// What the instrumented build adds: every memory access of a kernel is checked and counted. Reports bounds, reads of
// shared memory that nobody has written or that a cp.async still fills, and races; counts for KernelReport.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/simt/block.h"
#include "kernels/simt/memory.h"
#include "kernels/simt/races.h"
#include "kernels/simt/requests.h"
#include "kernels/simt/site.h"

namespace nanovlm::simt {

class Checker {
 public:
  explicit Checker(const DeviceMemory& memory) : memory_(memory) {}

  void begin_launch(KernelReport& report);
  // Names a report's lines, which are numbered by site, and sorts them.
  void name_lines(KernelReport& report) const;
  void begin_block(Block& block);
  void end_block();

  void block_barrier();
  void warp_barrier(int warp) { races_.clocks().warp_barrier(warp); }
  void warp_met(int warp) { requests_.warp_met(warp); }
  void fence() { races_.fence(block_->thread()); }
  void fence_proxy() { races_.clocks().fence_proxy(block_->thread()); }

  // An access of the running thread: by an instruction, which needs an address that is a multiple of `alignment`; by a
  // wrapper; by an atomic.
  void access(const void* instruction, const void* address, int bytes, int alignment, bool write);
  void wrapper_access(const char* operation, const void* address, int bytes, bool write, Where where);
  void atomic(const char* operation, const void* address, int bytes, Where where);
  // A cp.async writes from its issue on; its bytes may be read after the wait.
  void copy_issued(const AsyncCopy& copy, Where where);
  void copy_done(const AsyncCopy& copy, Where where);
  // mbarriers (hopper.h), which order accesses: made, arrived at, a phase's end, a wait that found one.
  void barrier_made(const void* barrier, Where where);
  void barrier_used(const char* operation, const void* barrier, Where where);
  void arrived(const void* barrier) { races_.clocks().arrived(block_->thread(), barrier); }
  void phase_ended(const void* barrier) { races_.clocks().phase_ended(barrier); }
  void waited(const void* barrier) { races_.clocks().waited(block_->thread(), barrier); }
  // The copy engine's copies, which count at `barrier` and must find it made and fenced: rows it reads, and shared
  // memory it writes from the issue on; `filled` once it may be read.
  void engine_counts(const void* barrier, Where where);
  void engine_reads(const void* address, int bytes, const void* barrier, Where where);
  void engine_fills(const void* address, int bytes, const void* barrier, Where where);
  void filled(const void* address, int bytes) { set_shared(address, bytes, Byte::written); }
  // Products of the running warp: what one of `group` reads, from its issue on until it has been waited for.
  void product_issued(uint32_t group);
  void product_reads(const void* address, int bytes, Where where);
  void products_done(uint32_t groups) { races_.clocks().products_done(block_->warp(), groups); }

 private:
  enum class Space { own, shared, global };
  enum class Byte : uint8_t { unwritten, in_flight, written };

  Space space_of(const void* address) const;
  const DeviceMemory* memory_of(const void* address) const;  // null where bounds are not known
  void check_bounds(SiteId site, const void* address, int bytes, bool write);
  // Each notes a fault in fault_; what comes from outside ends with end_access().
  void check(SiteId site, const void* address, int bytes, bool write, bool atomic);
  void check_shared_bytes(SiteId site, const char* address, int bytes, bool write);
  void check_race(SiteId site, const void* address, int bytes, bool write, bool atomic);
  void check_race_of(const Races::Actor& actor, SiteId site, const void* address, int bytes, bool write, bool atomic);
  void set_shared(const void* address, int bytes, Byte state);
  void fault(SiteId site, const std::string& what);
  void end_access();

  const DeviceMemory& memory_;
  const DeviceMemory& operands_ = operand_memory();
  Block* block_ = nullptr;
  SiteTable sites_;
  Races races_;
  Races::Actor product_{};  // the one being issued
  Requests requests_;
  std::unique_ptr<KernelError> fault_;
  std::vector<Byte> bytes_;  // of the shared memory
  const char *thread_locals_ = nullptr, *thread_locals_end_ = nullptr, *image_ = nullptr, *image_end_ = nullptr;
};

}  // namespace nanovlm::simt
