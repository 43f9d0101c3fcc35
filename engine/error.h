// Errors that a user or a caller can cause. A message names the operation or file, what was expected and what was
// found:
//     check(weight.shape() == Shape{C}, "rms_norm: weight is ", weight.shape(), ", but x is ", x.shape());
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace nanovlm {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The parts, streamed one after the other.
template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw Error(text(parts...));
}

template <class... Parts>
void check(bool ok, const Parts&... parts) {
  if (!ok) [[unlikely]]
    fail(parts...);
}

}  // namespace nanovlm
