// Byte-pair merging: the symbols of a word are joined, pair by pair, in the order in which training found the pairs.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace nanovlm {

// A token id and the bytes of its word that it stands for.
struct Symbol {
  int32_t id;
  int32_t begin, end;
};

// The result of joining two symbols. A lower rank goes first.
struct Merge {
  static constexpr int32_t kNever = INT32_MAX;
  int32_t rank = kNever;
  int32_t id = -1;

  explicit operator bool() const { return rank != kNever; }
};

class BytePairMerger {
 public:
  explicit BytePairMerger(int64_t merges);  // how many will be added

  // False, and nothing happens, if the pair has a merge already.
  bool add(int32_t left, int32_t right, const Merge& merge);

  Merge find(int32_t left, int32_t right) const;

  // Until no neighbours have a merge: joins the pair with the lowest rank, of equal ones the leftmost. O(n log n).
  void apply(std::vector<Symbol>& symbols) const;

 private:
  // A few symbols, as words have, are joined in place; many by a linked list and a heap.
  void apply_short(std::vector<Symbol>& symbols) const;
  void apply_long(std::vector<Symbol>& symbols) const;

  // A hash table with open addressing: a word asks for each of its pairs, and one cache line answers.
  struct Slot {
    uint64_t pair = ~uint64_t{0};
    Merge merge;
  };
  size_t slot_of(uint64_t pair) const;

  std::vector<Slot> slots_;
  int shift_;  // the hash is the upper bits of a product
};

}  // namespace nanovlm
