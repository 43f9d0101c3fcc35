#include "kernels/simt/races.h"

#include <algorithm>

namespace nanovlm::simt {

void Races::begin_block(int threads) {
  ++run_;
  clocks_.begin_block(threads);
  std::fill(fenced_.begin(), fenced_.end(), false);
  acquired_.assign(run_ - first_run_, false);
}

void Races::synchronise(int thread, const void* address) {
  std::vector<uint32_t>& releases = releases_[address];
  for (const uint32_t run : releases)
    if (run < run_) acquired_[run - first_run_] = true;
  if (fenced_[static_cast<size_t>(thread)]) {
    releases.push_back(run_);
    for (uint32_t i = 0; i < acquired_.size(); ++i)  // what others released to us goes on with it
      if (acquired_[i]) releases.push_back(first_run_ + i);
    std::sort(releases.begin(), releases.end());
    releases.erase(std::unique(releases.begin(), releases.end()), releases.end());
  }
}

Races::Page& Races::page(uintptr_t address) {
  const uintptr_t number = address / kPageBytes;
  if (number != last_number_) {
    std::unique_ptr<Page>& page = pages_[number];
    if (!page) page = std::make_unique<Page>();
    last_number_ = number, last_page_ = page.get();
  }
  return *last_page_;
}

bool Races::ordered(const Stamp& before, const Clocks::View& view, bool shared) const {
  if (before.run < first_run_) return true;  // none, or of an earlier launch
  if (before.run != run_) return shared || acquired_[before.run - first_run_];
  return clocks_.before(before.when, view);
}

Races::Conflict Races::access(const Actor& actor, const Access& access, bool atomic, SiteId site) {
  const auto [address, bytes, write, shared] = access;
  const uintptr_t end = address + static_cast<uintptr_t>(bytes);
  Stamp now;
  now.run = run_, now.when = actor.when;
  now.site = site, now.thread = static_cast<uint16_t>(actor.thread), now.atomic = atomic;
  Conflict conflict;
  for (uintptr_t at = address / kCellBytes * kCellBytes; at < end; at += kCellBytes) {
    Cell& cell = page(at).cells[at % kPageBytes / kCellBytes];
    now.bytes = static_cast<uint8_t>((at >= address ? 1 : 0) | (at + 1 < end ? 2 : 0));
    const auto compare = [&](const Stamp& before, bool before_wrote) {
      if (conflict.found || (before.bytes & now.bytes) == 0 || (before.atomic && atomic)) return;
      const bool same_block = before.run == run_;
      const bool in_order = ordered(before, actor.view, access.shared);
      const bool unfenced =
          in_order && actor.asynchronous && access.shared && same_block && !clocks_.fenced(before.when, actor.view);
      if (in_order && !unfenced) return;
      conflict = {true, before_wrote, access.write, before.site, before.thread, same_block, unfenced};
    };
    compare(cell.write, true);
    if (write) {
      for (const Stamp& read : cell.reads) compare(read, false);
      cell.write = now;
      cell.reads[0] = cell.reads[1] = {};
    } else {
      // An ordered read, or one of the same thread, tells nothing more; of the unordered keep the oldest.
      cell.reads[ordered(cell.reads[0], actor.view, shared) ? 0 : 1] = now;
    }
  }
  return conflict;
}

}  // namespace nanovlm::simt
