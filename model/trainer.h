// One optimizer step of nanoVLM's training: forward and backward over the micro-batches, clipping, AdamW with two
// rates, or one for each part.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/optimizer.h"
#include "engine/recording.h"
#include "model/vision_cache.h"
#include "model/vision_language_model.h"

namespace nanovlm {

struct TrainerOptions {
  double lr_mp = 2e-3, lr_backbones = 1e-4;
  std::optional<double> lr_vision_backbone, lr_language_backbone;  // of either alone; none: lr_backbones
  // A part whose rate is 0 gets no gradient, no moments and no weight decay, and does not count in the gradient's norm.
  // Else it stays as it is too, but counts in the norm, as in nanoVLM v1.
  bool freeze_at_zero = true;
  // A micro-batch in which no label counts is an error; else its loss is NaN, its gradient 0 and the step is taken all
  // the same, as in nanoVLM v1.
  bool refuse_unlabelled = true;
  std::optional<double> max_grad_norm;  // none: no clipping
  int64_t max_steps = 1;                // length of the learning-rate schedule
  DType dtype = DType::f32;
  Padding padding = Padding::packed;
  bool gradient_norm = false;      // report the norm even without clipping
  int64_t vision_cache_bytes = 0;  // of host memory, for what a frozen vision encoder made of pictures
  // Record a step's launches where a batch's shapes come again, and start them as a whole (engine/recording.h).
  bool recorded = false;
  AdamWOptions adamw;
};

struct StepResult {
  std::vector<double> losses;          // of each micro-batch, not divided
  std::optional<double> grad_norm;     // before clipping
  double lr_mp = 0, lr_backbones = 0;  // of lr_backbones, whether or not a backbone has a rate of its own
};

// A loss that is no finite number; the step has not been taken.
struct NonFiniteLoss : Error {
  NonFiniteLoss(const std::string& message, size_t micro_batch) : Error(message), micro_batch(micro_batch) {}
  size_t micro_batch;
};

class Trainer {
 public:
  // Error: every rate is 0, though such parts are frozen.
  Trainer(VisionLanguageModel& model, TrainerOptions options);

  // Each micro-batch's mean loss is divided by `accumulation` (by default their number; nanoVLM divides a short last
  // group by the full count). The rates are those of step(), counted from 0. The device is given inputs, then launches
  // alone, and is then asked for the losses and the norm. NonFiniteLoss, or Error: the norm is not finite.
  //
  // `meanwhile` is called between the last launch and that question: while a GPU works on this step, its caller may
  // fetch the next batches and stage() them.
  StepResult step(const std::vector<Batch>& micro_batches, int64_t accumulation = 0,
                  const std::function<void()>& meanwhile = {});

  // Puts the inputs of the next step on the device ahead of it. A step of other batches forgets them.
  void stage(const std::vector<Batch>& micro_batches);

  int64_t steps() const { return optimizer_.steps(); }
  size_t recordings() const { return recorded_.size(); }
  const VisionCache* vision_cache() const { return vision_cache_ ? &*vision_cache_ : nullptr; }  // null: there is none

 private:
  // A part of the model with a learning rate, which the schedule scales.
  struct Part {
    std::string prefix;  // of its parameters' names
    double lr;
    bool frozen;
  };
  static std::vector<Part> parts_of(const TrainerOptions& options);
  static std::vector<ParameterGroup> groups_of(VisionLanguageModel& model, const std::vector<Part>& parts);
  Inputs inputs_of(const Batch& batch);
  std::vector<Inputs> inputs_of(const std::vector<Batch>& micro_batches);
  bool wants_norm() const { return options_.max_grad_norm || options_.gradient_norm; }
  Tensor numbers_for(size_t losses) const;
  void launch(const std::vector<Inputs>& micro_batches, int64_t accumulation, const Tensor& numbers);
  Tensor run(const std::vector<Inputs>& micro_batches, int64_t accumulation);
  Tensor run_recorded(const std::vector<Inputs>& micro_batches, int64_t accumulation);

  VisionLanguageModel& model_;
  TrainerOptions options_;
  std::vector<Part> parts_;
  AdamW optimizer_;
  std::optional<VisionCache> vision_cache_;
  std::vector<Batch> staged_batches_;
  std::vector<Inputs> staged_;

  // Steps by the forms of their inputs. A recording reads its own inputs, which take over each batch's numbers.
  struct RecordedStep {
    std::vector<Inputs> inputs;
    Tensor numbers;
    std::unique_ptr<Recording> recording;
  };
  using Form = std::vector<int64_t>;
  std::map<Form, RecordedStep> recorded_;
  std::set<Form> rehearsed_;  // those whose memory is settled
};

}  // namespace nanovlm
