// Where a run's batches come from: a data set, or a file of ready ones.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/common/train_config.h"
#include "data/batch_file.h"
#include "data/loader.h"

namespace nanovlm::training {

// The micro-batches of one optimizer step.
struct StepBatches {
  std::vector<Batch> batches;  // none: the data has ended
  double wait_seconds = 0;     // for the data
  bool epoch_ends = false;     // with this step

  int64_t samples() const;
  int64_t tokens(int64_t picture_tokens) const;  // nanoVLM's count: text without padding, and the pictures'
};

// Steps, epoch after epoch. The last step of an epoch may have fewer micro-batches than the others.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  virtual StepBatches next() = 0;
  virtual int64_t micro_batches_per_epoch() const = 0;
  virtual std::string summary() const { return {}; }       // what there is to train on; empty: nothing to say
  virtual std::vector<std::string> notes() { return {}; }  // what was left out lately, and why
  virtual std::string report() const { return {}; }        // at the end
};

// Micro-batches of a file, as the reference's; see data/batch_file.h.
class FileBatches : public BatchSource {
 public:
  // `per_epoch` 0: all of the file's, over the epochs. Error: the file has fewer than asked for.
  FileBatches(const std::string& file, int64_t per_epoch, const TrainConfig& train);
  StepBatches next() override;
  int64_t micro_batches_per_epoch() const override { return per_epoch_; }

 private:
  std::string name_;
  BatchFile file_;
  int64_t accumulation_, per_epoch_, at_ = 0;
};

class DatasetBatches : public BatchSource {
 public:
  DatasetBatches(std::unique_ptr<Loader> loader, const TrainConfig& train);
  StepBatches next() override;
  int64_t micro_batches_per_epoch() const override { return loader_->batches_per_epoch(); }
  std::string summary() const override;
  std::vector<std::string> notes() override;  // of the first few only; the report counts all
  std::string report() const override { return loader_->report().text(); }

 private:
  static constexpr int64_t kNotesShown = 10;

  std::unique_ptr<Loader> loader_;
  int64_t batch_size_, accumulation_, noted_ = 0;
  bool blind_;
  std::optional<LoadedBatch> ahead_;  // read one batch early, to know where an epoch ends
};

}  // namespace nanovlm::training
