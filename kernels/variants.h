// Operations with several CUDA kernels, and which of them a run asks for: `--kernel attention=fma` on the command line.
//
// The choice lives in the device context (engine/device.h); the operation hands it to the contract's `kernel` field.
// Without a choice an operation takes the first of its kernels that can do the shape; a chosen one that can't throws.
#pragma once
#include <array>
#include <string>
#include <vector>

namespace nanovlm::kernels {

struct Variants {
  const char* operation;
  std::array<const char*, 4> kernels;  // by name, in the order in which they are tried; the rest is null
};

inline constexpr Variants kVariants[] = {
    {"attention", {"mma", "fma"}},
    {"attention_backward", {"whole", "mma", "fma"}},
};

class KernelChoices {
 public:
  // "attention=fma". Throws std::invalid_argument, which lists what there is, for anything unknown.
  void choose(const std::string& assignment);

  // The kernel that was asked for, or null.
  const char* of(const char* operation) const;

  // "attention=mma|fma", an entry an operation.
  static std::vector<std::string> list();

 private:
  std::array<const char*, std::size(kVariants)> chosen_ = {};
};

}  // namespace nanovlm::kernels
