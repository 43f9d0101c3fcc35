#include "apps/inspect/sections.h"

#include <cmath>

namespace nanovlm::inspect {

double norm_of(const std::vector<float>& values) {
  double sum = 0;
  for (const float v : values) sum += double{v} * v;
  return std::sqrt(sum);
}

}  // namespace nanovlm::inspect
