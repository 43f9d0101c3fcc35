#include "data/byte_pair_merger.h"

#include <algorithm>
#include <array>
#include <bit>
#include <queue>
#include <tuple>

namespace nanovlm {
namespace {

constexpr size_t kShort = 64;  // symbols; shifting their tails costs less than a heap up to about 100
constexpr uint64_t kNoPair = ~uint64_t{0};

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// A merge that may be due: of the symbol at `left` with its neighbour to the right.
struct Candidate {
  Merge merge;
  int32_t left;

  bool operator<(const Candidate& other) const {  // for a heap that has its largest on top
    return std::tie(other.merge.rank, other.left) < std::tie(merge.rank, left);
  }
};

}  // namespace

BytePairMerger::BytePairMerger(int64_t merges) {
  const uint64_t size = std::bit_ceil(static_cast<uint64_t>(2 * merges + 2));
  slots_.resize(size);
  shift_ = 64 - std::countr_zero(size);
}

// The slot that holds the pair, or the empty one where it would be.
size_t BytePairMerger::slot_of(uint64_t pair) const {
  size_t slot = pair * 0x9E3779B97F4A7C15u >> shift_;
  while (slots_[slot].pair != pair && slots_[slot].pair != kNoPair) slot = (slot + 1) & (slots_.size() - 1);
  return slot;
}

bool BytePairMerger::add(int32_t left, int32_t right, const Merge& merge) {
  Slot& slot = slots_[slot_of(pair_of(left, right))];
  if (slot.pair != kNoPair) return false;
  slot = {pair_of(left, right), merge};
  return true;
}

Merge BytePairMerger::find(int32_t left, int32_t right) const { return slots_[slot_of(pair_of(left, right))].merge; }

void BytePairMerger::apply(std::vector<Symbol>& symbols) const {
  if (symbols.size() <= kShort) return apply_short(symbols);
  apply_long(symbols);
}

void BytePairMerger::apply_short(std::vector<Symbol>& symbols) const {
  std::array<Merge, kShort> merges;  // merges[i] joins symbols i and i + 1
  size_t n = symbols.size();
  for (size_t i = 0; i + 1 < n; ++i) merges[i] = find(symbols[i].id, symbols[i + 1].id);
  while (n > 1) {
    size_t i = 0;
    for (size_t k = 1; k + 1 < n; ++k)
      if (merges[k].rank < merges[i].rank) i = k;
    if (!merges[i]) break;

    symbols[i] = {merges[i].id, symbols[i].begin, symbols[i + 1].end};
    std::copy(symbols.begin() + i + 2, symbols.begin() + n, symbols.begin() + i + 1);
    std::copy(merges.begin() + i + 1, merges.begin() + n - 1, merges.begin() + i);
    --n;
    if (i > 0) merges[i - 1] = find(symbols[i - 1].id, symbols[i].id);
    if (i + 1 < n) merges[i] = find(symbols[i].id, symbols[i + 1].id);
  }
  symbols.resize(n);
}

void BytePairMerger::apply_long(std::vector<Symbol>& symbols) const {
  constexpr int32_t kGone = -1;  // the id of a symbol that its left neighbour has taken in
  const auto n = static_cast<int32_t>(symbols.size());
  std::vector<int32_t> previous(symbols.size()), next(symbols.size());
  std::priority_queue<Candidate> due;
  const auto consider = [&](int32_t left) {
    if (left < 0 || next[left] == n) return;
    if (const Merge merge = find(symbols[left].id, symbols[next[left]].id)) due.push({merge, left});
  };
  for (int32_t i = 0; i < n; ++i) previous[i] = i - 1, next[i] = i + 1;
  for (int32_t i = 0; i < n; ++i) consider(i);

  while (!due.empty()) {
    const auto [merge, left] = due.top();
    due.pop();
    // Candidates are not withdrawn when a merge overtakes them: what the pair is now decides.
    if (symbols[left].id == kGone || next[left] == n) continue;
    const int32_t right = next[left];
    if (find(symbols[left].id, symbols[right].id).rank != merge.rank) continue;

    symbols[left] = {merge.id, symbols[left].begin, symbols[right].end};
    symbols[right].id = kGone;
    next[left] = next[right];
    if (next[left] < n) previous[next[left]] = left;
    consider(previous[left]);
    consider(left);
  }
  std::erase_if(symbols, [](const Symbol& symbol) { return symbol.id == kGone; });
}

}  // namespace nanovlm
