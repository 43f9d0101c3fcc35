// AdamW's coefficients of one step.
#pragma once
#include <cmath>

#include "kernels/adamw/adamw.h"

namespace nanovlm::kernels {

struct AdamWSettings {
  int64_t t;  // steps taken, this one included: 1, 2, ...
  double lr, beta1, beta2, eps, weight_decay;
};

inline AdamWCoefficients adamw_coefficients(const AdamWSettings& a) {
  const double t = static_cast<double>(a.t);
  return {.decay = static_cast<float>(1 - a.lr * a.weight_decay),
          .toward_gradient = static_cast<float>(1 - a.beta1),
          .beta2 = static_cast<float>(a.beta2),
          .one_minus_beta2 = static_cast<float>(1 - a.beta2),
          .step = static_cast<float>(a.lr / (1 - std::pow(a.beta1, t))),
          .root_correction = static_cast<float>(std::sqrt(1 - std::pow(a.beta2, t))),
          .eps = static_cast<float>(a.eps),
          .unused = 0};
}

}  // namespace nanovlm::kernels
