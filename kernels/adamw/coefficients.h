// What AdamW's settings come to at one step: combined in fp64 and rounded once, as PyTorch does; the arithmetic on the
// elements is fp32.
#pragma once
#include <cmath>

#include "kernels/adamw/adamw.h"

namespace nanovlm::kernels {
namespace {

struct Coefficients {
  float decay, toward_gradient, beta2, one_minus_beta2, step, root_correction, eps;
};

Coefficients coefficients_of(const AdamW& a) {
  const double t = static_cast<double>(a.t);
  return {.decay = static_cast<float>(1 - a.lr * a.weight_decay),
          .toward_gradient = static_cast<float>(1 - a.beta1),
          .beta2 = static_cast<float>(a.beta2),
          .one_minus_beta2 = static_cast<float>(1 - a.beta2),
          .step = static_cast<float>(a.lr / (1 - std::pow(a.beta1, t))),
          .root_correction = static_cast<float>(std::sqrt(1 - std::pow(a.beta2, t))),
          .eps = static_cast<float>(a.eps)};
}

}  // namespace
}  // namespace nanovlm::kernels
