#include "engine/schedule.h"

#include <cmath>
#include <numbers>

namespace nanovlm {

double get_lr(int64_t step, double max_lr, int64_t max_steps) {
  const double min_lr = max_lr * 0.1, warmup = static_cast<double>(max_steps) * 0.03, it = static_cast<double>(step);
  if (it < warmup) return max_lr * (it + 1) / warmup;
  if (step >= max_steps) return min_lr;
  const double decay = (it - warmup) / (static_cast<double>(max_steps) - warmup);
  return min_lr + 0.5 * (1 + std::cos(std::numbers::pi * decay)) * (max_lr - min_lr);
}

}  // namespace nanovlm
