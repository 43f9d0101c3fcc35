// One optimizer step of nanoVLM's training: forward and backward over the micro-batches, clipping, AdamW with two
// rates.
#pragma once
#include <optional>
#include <vector>

#include "engine/optimizer.h"
#include "model/vision_language_model.h"

namespace nanovlm {

struct TrainerOptions {
  double lr_mp = 2e-3, lr_backbones = 1e-4;
  std::optional<double> max_grad_norm;  // none: no clipping
  int64_t max_steps = 1;                // length of the learning-rate schedule
  DType dtype = DType::f32;
  Padding padding = Padding::packed;
  bool gradient_norm = false;  // report the norm even without clipping
  AdamWOptions adamw;
};

struct StepResult {
  std::vector<double> losses;       // of each micro-batch, not divided
  std::optional<double> grad_norm;  // before clipping
  double lr_mp = 0, lr_backbones = 0;
};

// A loss that is no finite number; the step has not been taken.
struct NonFiniteLoss : Error {
  NonFiniteLoss(const std::string& message, size_t micro_batch) : Error(message), micro_batch(micro_batch) {}
  size_t micro_batch;
};

class Trainer {
 public:
  Trainer(VisionLanguageModel& model, TrainerOptions options);

  // Each micro-batch's mean loss is divided by `accumulation` (by default their number; nanoVLM divides a short last
  // group by the full count). The rates are those of step(), counted from 0.
  StepResult step(const std::vector<Batch>& micro_batches, int64_t accumulation = 0);

  int64_t steps() const { return optimizer_.steps(); }

 private:
  VisionLanguageModel& model_;
  TrainerOptions options_;
  AdamW optimizer_;
};

}  // namespace nanovlm
