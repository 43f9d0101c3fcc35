#include "apps/train/batch_source.h"

#include "apps/common/evaluate.h"

namespace nanovlm::training {

int64_t StepBatches::samples() const {
  int64_t count = 0;
  for (const Batch& batch : batches) count += batch.size();
  return count;
}

int64_t StepBatches::tokens(int64_t picture_tokens) const {
  int64_t count = samples() * picture_tokens;
  for (const Batch& batch : batches) {
    if (!batch.attention_mask.defined()) {
      count += batch.input_ids.numel();
      continue;
    }
    const uint8_t* mask = batch.attention_mask.u8();
    for (int64_t i = 0; i < batch.attention_mask.numel(); ++i) count += mask[i];
  }
  return count;
}

FileBatches::FileBatches(const std::string& file, int64_t per_epoch, const TrainConfig& train)
    : name_(file),
      file_(file),
      accumulation_(train.gradient_accumulation_steps),
      per_epoch_(per_epoch ? per_epoch : file_.size() / train.epochs) {
  check(per_epoch_ > 0 && per_epoch_ <= file_.size() / train.epochs, file, ": holds ", file_.size(),
        " micro-batches, but ", train.epochs, " epochs of ", per_epoch_, " are asked for");
}

StepBatches FileBatches::next() {
  StepBatches step;
  while (static_cast<int64_t>(step.batches.size()) < accumulation_ && !step.epoch_ends) {
    step.batches.push_back(file_.read(at_++));
    const Tensor& ids = step.batches.back().input_ids;
    check(ids.numel() > 0, name_, ": expected samples with tokens, found input_ids ", ids.shape());
    step.epoch_ends = at_ % per_epoch_ == 0;
  }
  return step;
}

DatasetBatches::DatasetBatches(std::unique_ptr<Loader> loader, const TrainConfig& train)
    : loader_(std::move(loader)),
      batch_size_(train.batch_size),
      accumulation_(train.gradient_accumulation_steps),
      blind_(train.blind),
      ahead_(loader_->next()) {}

StepBatches DatasetBatches::next() {
  StepBatches step;
  while (static_cast<int64_t>(step.batches.size()) < accumulation_ && ahead_) {
    if (blind_) hide_pictures(ahead_->batch);
    step.batches.push_back(ahead_->batch);
    step.wait_seconds += ahead_->wait_seconds;
    ahead_ = loader_->next();
  }
  step.epoch_ends = !ahead_;
  if (step.epoch_ends) ahead_ = loader_->next();
  return step;
}

std::string DatasetBatches::summary() const {
  return text(loader_->rows(), " samples, ", loader_->batches_per_epoch(), " batches/epoch, batch size ", batch_size_);
}

std::vector<std::string> DatasetBatches::notes() {
  std::vector<std::string> lines;
  for (const Skip& skip : loader_->take_skipped())
    if (++noted_ <= kNotesShown) lines.push_back("left out: " + skip.message);
  return lines;
}

}  // namespace nanovlm::training
