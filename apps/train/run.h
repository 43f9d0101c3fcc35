// A training run: what is opened before it, its steps, and what it leaves behind.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/common/evaluate.h"
#include "apps/common/run_log.h"
#include "apps/train/batch_source.h"
#include "apps/train/settings.h"
#include "model/trainer.h"

namespace nanovlm::training {

class Run {
 public:
  // Opens everything that the run needs, so that what is missing is known before work is lost.
  Run(const Settings& settings, const RunConfig& config);

  void describe();
  void train();
  void finish();  // saves the model, and sums the run up

 private:
  struct Epoch {
    int64_t number = 1, micro_batches = 0, tokens = 0;
    double loss = 0, start = 0;  // sum of the micro-batches' losses; seconds
  };

  void open_batches(const RunConfig& config);
  void open_dataset_batches(const RunConfig& config);
  void make_trainer();
  bool validation_due(int64_t step) const;
  StepResult take(const StepBatches& work, int64_t step, const std::function<void()>& meanwhile);
  void record(int64_t step, const StepResult& result, double tokens_per_second);
  void validate(int64_t step, double tokens_per_second);
  // Logs it so many times, and keeps the best model. None: the validation data gave none.
  std::optional<double> validation_loss(int64_t step, size_t times);
  void end_epoch(int64_t step, Epoch& epoch);
  void push();                        // to the Hugging Face Hub, where that was asked for
  void say(const std::string& line);  // on standard output, unless that is for JSON

  const Settings settings_;
  const TrainConfig train_;
  std::vector<std::string> warnings_;
  Device device_;
  RunLog log_;
  VisionLanguageModel model_;
  std::unique_ptr<BatchSource> source_;
  std::unique_ptr<Trainer> trainer_;
  EvaluationData validation_;
  std::map<std::string, std::string> tokenizer_files_;  // saved with the model; none of the one under assets/
  std::string name_;
  int64_t steps_ = 0, samples_ = 0, failed_validations_ = 0;
  double loss_ = 0;  // of the last micro-batch
  std::optional<double> best_;
};

}  // namespace nanovlm::training
