// Learning rates over a run.
#pragma once
#include <cstdint>

namespace nanovlm {

// nanoVLM's get_lr: linear warm-up over 3 % of max_steps from max_lr / warm-up, a cosine down to max_lr / 10, constant
// after. The warm-up is a fraction, not rounded: with fewer than 34 steps the first rate exceeds max_lr, as there.
double get_lr(int64_t step, double max_lr, int64_t max_steps);

}  // namespace nanovlm
