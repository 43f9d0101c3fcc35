#include "kernels/simt/requests.h"

#include <algorithm>
#include <bit>

namespace nanovlm::simt {
namespace {

constexpr int kLanes = 32, kBanks = 32;
constexpr uintptr_t kSector = 32, kWord = 4;

// The distinct values, sorted.
void sort_unique(std::vector<uintptr_t>& values) {
  if (!std::is_sorted(values.begin(), values.end())) std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

}  // namespace

void Requests::begin_launch(KernelReport& report) {
  report_ = &report;
  touched_.clear();
}

void Requests::begin_block(int warps) {
  streams_.resize(std::max(streams_.size(), static_cast<size_t>(warps)));
  listed_.resize(streams_.size());
}

Requests::Stream& Requests::stream(int warp, SiteId site) {
  std::vector<Stream>& of_warp = streams_[static_cast<size_t>(warp)];
  if (of_warp.size() <= site) of_warp.resize(site + 1);
  Stream& stream = of_warp[site];
  if (!stream.listed) listed_[static_cast<size_t>(warp)].push_back(site), stream.listed = true;
  return stream;
}

void Requests::add(int warp, int lane, uint32_t lanes_of_warp, SiteId site, const Access& access) {
  Stream& s = stream(warp, site);
  const uint32_t turn = s.accesses[lane]++ - s.first;
  if (turn >= s.pending.size()) s.pending.resize(turn + 1);
  Request& request = s.pending[turn];
  request.lanes |= uint32_t{1} << lane;
  request.bytes = access.bytes, request.write = access.write, request.shared = access.shared;
  request.address[lane] = access.address;
  while (!s.pending.empty() && s.pending.front().lanes == lanes_of_warp) {
    count(s.pending.front(), site);
    s.pending.pop_front();
    ++s.first;
  }
}

void Requests::warp_met(int warp) {
  for (const SiteId site : listed_[static_cast<size_t>(warp)]) {
    Stream& s = streams_[static_cast<size_t>(warp)][site];
    for (const Request& request : s.pending) count(request, site);
    s = {};
  }
  listed_[static_cast<size_t>(warp)].clear();
}

void Requests::count(const Request& request, SiteId site) {
  if (request.lanes == 0) return;
  if (report_->lines.size() <= site) report_->lines.resize(site + 1);
  LineReport& line = report_->lines[site];
  ++line.requests;
  ++report_->requests;
  report_->lanes += std::popcount(request.lanes);
  if (request.shared) {
    count_wavefronts(request, line);
  } else {
    count_sectors(request, line);
  }
}

void Requests::count_sectors(const Request& request, LineReport& line) {
  distinct_.clear();
  for (uint32_t left = request.lanes; left != 0; left &= left - 1)
    distinct_.push_back(request.address[std::countr_zero(left)]);
  sort_unique(distinct_);
  uintptr_t last = 0;  // sector; they come in order
  int touched = 0;
  for (const uintptr_t address : distinct_)
    for (uintptr_t sector = address / kSector;
         sector <= (address + static_cast<uintptr_t>(request.bytes) - 1) / kSector; ++sector) {
      if (touched > 0 && sector <= last) continue;
      last = sector, ++touched;
      touch(sector, request.write);
    }
  const int ideal =
      (static_cast<int>(distinct_.size()) * request.bytes + static_cast<int>(kSector) - 1) / static_cast<int>(kSector);
  report_->sectors += touched, line.sectors += touched;
  report_->ideal_sectors += ideal, line.ideal_sectors += ideal;
}

// A sector comes from memory where it is read before it is written, and goes back once where it is written.
void Requests::touch(uintptr_t sector, bool write) {
  uint8_t& state = touched_[sector];
  const uint8_t bit = write ? 2 : 1;
  if (state & bit || (!write && state & 2)) return;
  state |= bit;
  report_->dram_bytes += static_cast<int64_t>(kSector);
}

// The lanes that one pass serves: all for up to 4 bytes each, half of them for 8, a quarter for 16. A pass delivers one
// word a bank.
void Requests::count_wavefronts(const Request& request, LineReport& line) {
  const int group = request.bytes <= 4 ? 32 : request.bytes == 8 ? 16 : 8;
  for (int first = 0; first < kLanes; first += group) {
    distinct_.clear();  // words
    for (int lane = first; lane < first + group; ++lane)
      if (request.lanes >> lane & 1)
        for (uintptr_t word = request.address[lane] / kWord;
             word <= (request.address[lane] + static_cast<uintptr_t>(request.bytes) - 1) / kWord; ++word)
          distinct_.push_back(word);
    if (distinct_.empty()) continue;
    sort_unique(distinct_);
    int in_bank[kBanks] = {};
    for (const uintptr_t word : distinct_) ++in_bank[word % kBanks];
    const int passes = *std::max_element(in_bank, in_bank + kBanks);
    const int ideal = (static_cast<int>(distinct_.size()) + kBanks - 1) / kBanks;
    report_->wavefronts += passes, line.wavefronts += passes;
    report_->ideal_wavefronts += ideal, line.ideal_wavefronts += ideal;
  }
}

}  // namespace nanovlm::simt
