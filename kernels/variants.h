// Operations with several CUDA kernels, and which of them a run asks for: `--kernel attention=fma` on the command line.
//
// The choice lives in the device context (engine/device.h); the operation hands it to the contract's `kernel` field.
// Without a choice an operation takes the first of its kernels that can do the shape; a chosen one that can't throws.
// The table of names is in variants.cpp, so that one more does not rebuild everything.
#pragma once
#include <map>
#include <string>
#include <vector>

namespace nanovlm::kernels {

class KernelChoices {
 public:
  // "attention=fma". Throws std::invalid_argument, which lists what there is, for anything unknown.
  void choose(const std::string& assignment);

  // The kernel that was asked for, or null.
  const char* of(const std::string& operation) const;

  // Every choice there is, as choose() takes it.
  static std::vector<std::string> all();

 private:
  std::map<std::string, const char*> chosen_;
};

}  // namespace nanovlm::kernels
