#include "kernels/variants.h"

#include <stdexcept>

namespace nanovlm::kernels {
namespace {

struct Variant {
  const char *operation, *kernel;
};

// Of each operation in the order in which it tries them; those of attention for one generation of GPUs only on request.
constexpr Variant kVariants[] = {
    {"attention", "whole"},
    {"attention", "mma"},
    {"attention", "fma"},
    {"attention", "wgmma"},
    {"attention_backward", "whole"},
    {"attention_backward", "mma"},
    {"attention_backward", "fma_whole"},
    {"attention_backward", "fma"},
    {"matmul", "library"},
    {"matmul", "gemm"},
    {"matmul", "gemm_hopper"},
    {"mlp", "separate"},
    {"mlp", "epilogue"},
    {"projector", "separate"},
    {"projector", "fused"},
};

std::string assignment_of(const Variant& variant) { return std::string(variant.operation) + "=" + variant.kernel; }

}  // namespace

std::vector<std::string> KernelChoices::all() {
  std::vector<std::string> assignments;
  for (const Variant& variant : kVariants) assignments.push_back(assignment_of(variant));
  return assignments;
}

void KernelChoices::choose(const std::string& assignment) {
  std::string known;
  for (const Variant& variant : kVariants) {
    if (assignment_of(variant) == assignment) {
      chosen_[variant.operation] = variant.kernel;
      return;
    }
    known += (known.empty() ? "" : ", ") + assignment_of(variant);
  }
  throw std::invalid_argument("kernel: \"" + assignment + "\" is unknown; expected one of " + known);
}

const char* KernelChoices::of(const std::string& operation) const {
  const auto found = chosen_.find(operation);
  return found == chosen_.end() ? nullptr : found->second;
}

}  // namespace nanovlm::kernels
