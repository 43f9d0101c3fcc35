// Places in a kernel's source that access memory: a line that a wrapper recorded, or the address of an instruction.
#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/simt/where.h"

namespace nanovlm::simt {

// "file:line" of an instruction of this program, from its debug information. Of inlined calls, the innermost that is
// not in the vocabulary headers.
std::string line_of(const void* instruction);

// The name of the function at this address, demangled; empty where the program does not know it.
std::string function_at(const void* address);

using SiteId = uint32_t;

// Numbers for places, so that a record of an access needs four bytes for its place.
class SiteTable {
 public:
  SiteId of_instruction(const void* instruction);
  SiteId of_wrapper(const char* operation, Where where);
  std::string place(SiteId id) const;        // "norm.cu:42"
  std::string description(SiteId id) const;  // "ldmatrix_x4 at gemm.cu:72"
  size_t size() const { return sites_.size(); }

 private:
  struct Site {
    const void* instruction;  // null for a wrapper
    const char* operation;
    Where where;
  };
  SiteId add(uint64_t key, const Site& site);

  std::vector<Site> sites_;
  std::unordered_map<uint64_t, SiteId> ids_;
  uint64_t last_key_ = 0;
  SiteId last_id_ = 0;
};

}  // namespace nanovlm::simt
