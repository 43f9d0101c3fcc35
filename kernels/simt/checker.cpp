#include "kernels/simt/checker.h"

#include <algorithm>
#include <map>

#include <link.h>

namespace nanovlm::simt {
namespace {

struct Program {
  const char *thread_locals = nullptr, *thread_locals_end = nullptr, *image = nullptr, *image_end = nullptr;
};

// The first object is the program itself: where its constants and this thread's thread_locals lie.
int describe_program(dl_phdr_info* info, size_t, void* data) {
  Program& program = *static_cast<Program*>(data);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type == PT_TLS) {
      program.thread_locals = static_cast<const char*>(info->dlpi_tls_data);
      program.thread_locals_end = program.thread_locals + header.p_memsz;
    } else if (header.p_type == PT_LOAD) {
      const char* begin = reinterpret_cast<const char*>(info->dlpi_addr + header.p_vaddr);
      if (!program.image || begin < program.image) program.image = begin;
      program.image_end = std::max(program.image_end, begin + header.p_memsz);
    }
  }
  return 1;
}

}  // namespace

void Checker::begin_launch(KernelReport& report) {
  report.instrumented = true;
  races_.begin_launch();
  requests_.begin_launch(report);
  Program program;
  dl_iterate_phdr(describe_program, &program);
  thread_locals_ = program.thread_locals, thread_locals_end_ = program.thread_locals_end;
  image_ = program.image, image_end_ = program.image_end;
}

void Checker::name_lines(KernelReport& report) const {
  std::map<std::string, LineReport> lines;  // several instructions may share a line
  for (size_t site = 0; site < report.lines.size(); ++site) {
    const LineReport& from = report.lines[site];
    if (from.requests == 0) continue;
    const std::string place = sites_.place(static_cast<SiteId>(site));
    LineReport& to = lines[place];
    to.place = place;
    to.requests += from.requests, to.sectors += from.sectors, to.ideal_sectors += from.ideal_sectors;
    to.wavefronts += from.wavefronts, to.ideal_wavefronts += from.ideal_wavefronts;
  }
  report.lines.clear();
  for (const auto& [place, line] : lines) report.lines.push_back(line);
  std::stable_sort(report.lines.begin(), report.lines.end(),
                   [](const LineReport& a, const LineReport& b) { return a.wasted() > b.wasted(); });
}

void Checker::begin_block(Block& block) {
  block_ = &block;
  bytes_.assign(static_cast<size_t>(block.shared().capacity()), Byte::unwritten);
  races_.begin_block(static_cast<int>(block.launch().shape.block.count()));
  requests_.begin_block(block.warps());
}

void Checker::end_block() {
  for (int warp = 0; warp < block_->warps(); ++warp) requests_.warp_met(warp);
}

void Checker::block_barrier() {
  races_.clocks().block_barrier();
  for (int warp = 0; warp < block_->warps(); ++warp) requests_.warp_met(warp);
}

Checker::Space Checker::space_of(const void* address) const {
  if (block_->shared().holds(address)) return Space::shared;
  if (memory_of(address)) return Space::global;
  const auto within = [&](const char* begin, const char* end) { return address >= begin && address < end; };
  if (block_->on_a_fiber(address) || within(thread_locals_, thread_locals_end_) || within(image_, image_end_))
    return Space::own;
  return Space::global;
}

const DeviceMemory* Checker::memory_of(const void* address) const {
  if (memory_.in_range(address)) return &memory_;
  return operands_.in_range(address) ? &operands_ : nullptr;
}

void Checker::access(const void* instruction, const void* address, int bytes, int alignment, bool write) {
  if (space_of(address) == Space::own) return;
  const SiteId site = sites_.of_instruction(instruction);
  if (block_->stalled()) fault(site, block_->stalled_text());
  if (const auto off = reinterpret_cast<uintptr_t>(address) % static_cast<uintptr_t>(alignment); off != 0)
    fault(site, text("misaligned: ", write ? "write" : "read", " of ", bytes, " bytes at an address that is ", off,
                     " past a multiple of ", alignment));
  check(site, address, bytes, write, false);
  end_access();
}

void Checker::wrapper_access(const char* operation, const void* address, int bytes, bool write, Where where) {
  if (space_of(address) == Space::own) return;
  check(sites_.of_wrapper(operation, where), address, bytes, write, false);
  end_access();
}

void Checker::atomic(const char* operation, const void* address, int bytes, Where where) {
  if (space_of(address) == Space::own) return;
  races_.synchronise(block_->thread(), address);
  check(sites_.of_wrapper(operation, where), address, bytes, true, true);
  end_access();
}

void Checker::check(SiteId site, const void* address, int bytes, bool write, bool atomic) {
  const bool shared = space_of(address) == Space::shared;
  if (shared)
    check_shared_bytes(site, static_cast<const char*>(address), bytes, write);
  else
    check_bounds(site, address, bytes, write);
  check_race(site, address, bytes, write, atomic);
  requests_.add(block_->warp(), block_->lane(), block_->lanes(), site,
                {reinterpret_cast<uintptr_t>(address), bytes, write, shared});
}

void Checker::check_bounds(SiteId site, const void* address, int bytes, bool write) {
  const DeviceMemory* memory = memory_of(address);
  if (memory && !memory->live(address, bytes))
    fault(site, text("out of bounds: ", write ? "write" : "read", " of ", bytes, " bytes ", memory->describe(address)));
}

void Checker::check_shared_bytes(SiteId site, const char* address, int bytes, bool write) {
  const SharedArrayRecord* array = block_->shared().find(address);
  if (!array || address + bytes > array->begin + array->bytes)
    return fault(site,
                 text("out of bounds: ", write ? "write" : "read", " of ", bytes, " bytes of shared memory ",
                      array ? text("past the end of '", array->key->name, "'") : std::string("outside every array")));
  Byte* states = &bytes_[static_cast<size_t>(block_->shared().offset(address))];
  if (write) {
    std::fill(states, states + bytes, Byte::written);
    return;
  }
  for (int i = 0; i < bytes; ++i) {
    if (states[i] == Byte::written) continue;
    const int64_t byte = address + i - array->begin;
    return fault(site, states[i] == Byte::unwritten
                           ? text("unwritten: reads byte ", byte, " of shared array '", array->key->name,
                                  "', which no thread has written")
                           : text("missing wait: reads byte ", byte, " of shared array '", array->key->name,
                                  "', which an asynchronous copy is still filling"));
  }
}

void Checker::check_race(SiteId site, const void* address, int bytes, bool write, bool atomic) {
  check_race_of(races_.thread(block_->thread()), site, address, bytes, write, atomic);
}

void Checker::check_race_of(const Races::Actor& actor, SiteId site, const void* address, int bytes, bool write,
                            bool atomic) {
  const bool shared = space_of(address) == Space::shared;
  const Races::Conflict conflict =
      races_.access(actor, {reinterpret_cast<uintptr_t>(address), bytes, write, shared}, atomic, site);
  if (!conflict.found) return;
  const Index other = block_->thread_index(conflict.thread);
  const char* kind = !conflict.before_wrote ? "read/write" : conflict.now_wrote ? "write/write" : "write/read";
  fault(site,
        text(conflict.unfenced ? "missing fence_async_proxy, " : "race, ", kind, " of ", shared ? "shared" : "global",
             " memory: ", sites_.description(conflict.before), " by thread (", other.x, ',', other.y, ',', other.z,
             ") of ", conflict.same_block ? "this block" : "another block", " <-> ", sites_.description(site)));
}

void Checker::copy_issued(const AsyncCopy& copy, Where where) {
  const SiteId site = sites_.of_wrapper("cp_async16", where);
  if (copy.valid_bytes > 0 && space_of(copy.from) != Space::own)
    check(sites_.of_wrapper("cp_async16 (source)", where), copy.from, copy.valid_bytes, false, false);
  check(site, copy.to, copy.bytes, true, false);
  set_shared(copy.to, copy.bytes, Byte::in_flight);
  end_access();
}

void Checker::copy_done(const AsyncCopy& copy, Where where) {
  check_race(sites_.of_wrapper("cp_async_wait", where), copy.to, copy.bytes, true, false);
  set_shared(copy.to, copy.bytes, Byte::written);
  end_access();
}

void Checker::barrier_made(const void* barrier, Where where) {
  races_.clocks().barrier_made(block_->thread(), barrier);
  check_race(sites_.of_wrapper("arrivals_init", where), barrier, sizeof(uint64_t), true, false);
  end_access();
}

void Checker::barrier_used(const char* operation, const void* barrier, Where where) {
  if (!races_.clocks().knows(block_->thread(), barrier))
    fault(sites_.of_wrapper(operation, where),
          text("race: ", operation, " on a barrier that another thread made, and nothing orders that before"));
  end_access();
}

void Checker::engine_counts(const void* barrier, Where where) {
  const Races::Actor engine = races_.copy_engine(block_->thread(), barrier);
  check_race_of(engine, sites_.of_wrapper("copy_box", where), barrier, sizeof(uint64_t), false, false);
  end_access();
}

void Checker::engine_reads(const void* address, int bytes, const void* barrier, Where where) {
  if (space_of(address) == Space::own) return;
  const SiteId site = sites_.of_wrapper("copy_box (source)", where);
  check_bounds(site, address, bytes, false);
  check_race_of(races_.copy_engine(block_->thread(), barrier), site, address, bytes, false, false);
  requests_.add(block_->warp(), block_->lane(), block_->lanes(), site,
                {reinterpret_cast<uintptr_t>(address), bytes, false, false});
  end_access();
}

void Checker::engine_fills(const void* address, int bytes, const void* barrier, Where where) {
  const SiteId site = sites_.of_wrapper("copy_box", where);
  check_race_of(races_.copy_engine(block_->thread(), barrier), site, address, bytes, true, false);
  set_shared(address, bytes, Byte::in_flight);
  end_access();
}

void Checker::product_issued(uint32_t group) {
  product_ = races_.tensor_cores(block_->thread(), block_->warp(), group);
}

void Checker::product_reads(const void* address, int bytes, Where where) {
  const SiteId site = sites_.of_wrapper("wgmma", where);
  check_shared_bytes(site, static_cast<const char*>(address), bytes, false);
  check_race_of(product_, site, address, bytes, false, false);
  end_access();
}

void Checker::set_shared(const void* address, int bytes, Byte state) {
  Byte* states = &bytes_[static_cast<size_t>(block_->shared().offset(address))];
  std::fill(states, states + bytes, state);
}

void Checker::fault(SiteId site, const std::string& what) {
  if (!fault_) fault_ = block_->error_at(block_->thread(), sites_.place(site), what);
}

// Ends the block after a fault. Not by an exception, since an instrumented kernel's frames expect none from an access;
// so nothing on the stack may own memory here.
void Checker::end_access() {
  if (fault_) [[unlikely]]
    block_->abandon(std::move(fault_));
}

}  // namespace nanovlm::simt
