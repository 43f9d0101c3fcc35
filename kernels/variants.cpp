#include "kernels/variants.h"

#include <stdexcept>

namespace nanovlm::kernels {

std::vector<std::string> KernelChoices::list() {
  std::vector<std::string> all;
  for (const Variants& variants : kVariants) {
    std::string entry = variants.operation;
    for (size_t i = 0; i < variants.kernels.size() && variants.kernels[i]; ++i)
      entry += (i == 0 ? '=' : '|') + std::string(variants.kernels[i]);
    all.push_back(entry);
  }
  return all;
}

void KernelChoices::choose(const std::string& assignment) {
  const size_t equals = assignment.find('=');
  for (size_t o = 0; o < std::size(kVariants) && equals != std::string::npos; ++o) {
    if (assignment.substr(0, equals) != kVariants[o].operation) continue;
    for (const char* kernel : kVariants[o].kernels)
      if (kernel && assignment.substr(equals + 1) == kernel) {
        chosen_[o] = kernel;
        return;
      }
  }
  std::string known;
  for (const std::string& entry : list()) known += (known.empty() ? "" : ", ") + entry;
  throw std::invalid_argument("kernel: \"" + assignment + "\" is unknown; expected one of " + known);
}

const char* KernelChoices::of(const char* operation) const {
  for (size_t o = 0; o < std::size(kVariants); ++o)
    if (kVariants[o].operation == std::string(operation)) return chosen_[o];
  throw std::logic_error(std::string(operation) + ": has no choice of kernels in kernels/variants.h");
}

}  // namespace nanovlm::kernels
