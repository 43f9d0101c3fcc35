// The place in a kernel's source that called into the executor.
#pragma once
#include <cstring>
#include <ostream>
#include <sstream>
#include <string>

namespace nanovlm::simt {

struct Where {
  const char* file = "?";
  int line = 0;

  // As a default argument, `Where where = Where::here()` is the line of the call.
  static constexpr Where here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }

  bool operator==(const Where& other) const {
    return line == other.line && (file == other.file || std::strcmp(file, other.file) == 0);
  }
};

inline std::ostream& operator<<(std::ostream& out, const Where& where) {
  return out << where.file << ':' << where.line;
}

// The parts, streamed one after the other.
template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

}  // namespace nanovlm::simt
