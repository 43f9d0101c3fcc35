// From records to batches.
//
// VqaCollator makes what a model is trained on: question and answer in one text, the next token as the label at every
// place that predicts a token of the answer. QuestionCollator makes what a model is asked: the question alone, with the
// answer beside it. Both use the first picture and the first turn of a record, as nanoVLM v1 does.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/image.h"
#include "data/picture_cache.h"
#include "data/prompt.h"
#include "data/record.h"
#include "engine/batch.h"

namespace nanovlm {

enum class OverLong { drop, truncate, mask };  // leave out; cut and learn what is left; cut and learn nothing
enum class TextPadding { right_to_longest, left_to_longest, left_to_max };

struct CollateOptions {
  int64_t image_size = 224;
  int64_t max_length = 79;  // tokens of question and answer
  // On the right, text follows the picture at once, in training as in generation. On the left a question stands
  // elsewhere in every batch, since positions count the padding.
  TextPadding padding = TextPadding::right_to_longest;
  OverLong over_long = OverLong::drop;
  bool boundary_from_offsets = true;  // else the question's length is that of its tokens when alone
  // A record that names no picture gets a black one, 224 x 224, and so does one whose first is null; else the former is
  // bad, and the other's picture the first that is not.
  bool black_without_picture = false;

  // compat: "none", or "nanovlm-v1" for what the reference does, its mistakes included.
  static CollateOptions of(const std::string& compat, int64_t image_size, int64_t max_length);
  static CollateOptions nanovlm_v1(int64_t image_size, int64_t max_length);
  // The same, with no text too long.
  CollateOptions uncut() const;
};

// A record, ready to be put in a batch.
struct Sample {
  std::string place, question, answer;
  int64_t row = -1;                      // of its source; a Loader fills it in
  std::shared_ptr<const Image> picture;  // image_size x image_size
  std::vector<int32_t> ids;              // what the model reads
  int64_t first_target = 0;              // ids from here on are to be predicted; ids.size(): none
  std::vector<int32_t> answer_ids;       // QuestionCollator only
  bool cut = false;                      // it was longer than max_length

  int64_t targets() const { return static_cast<int64_t>(ids.size()) - first_target; }
};

class Collator {
 public:
  Collator(PromptTokenizer text, const CollateOptions& options, std::shared_ptr<PictureCache> cache = nullptr);
  virtual ~Collator() = default;

  // May be called from several threads at once. BadRecord: the record can't be used.
  Sample prepare(const Record& record, const std::string& place) const;
  Sample prepare_text(const Record& record, const std::string& place) const;  // the same without the picture

  // On `host`. All samples are this collator's.
  virtual Batch collate(std::span<const Sample> samples, const Device& host) const = 0;

 protected:
  virtual void tokenize(Sample& sample) const = 0;  // fills in ids and what belongs to them

  Tensor stack_pictures(std::span<const Sample> samples, const Device& host) const;  // [B, 3, S, S] u8

  const PromptTokenizer text_;
  const CollateOptions options_;

 private:
  std::shared_ptr<const Image> picture_of(const Record& record, const std::string& place) const;

  std::shared_ptr<PictureCache> cache_;
};

class VqaCollator final : public Collator {
 public:
  using Collator::Collator;
  Batch collate(std::span<const Sample> samples, const Device& host) const override;

 private:
  void tokenize(Sample& sample) const override;
};

// Batches have no labels. Questions are padded to the longest, on the side that `padding` says, and never cut:
// max_length and what follows from it are not used.
class QuestionCollator final : public Collator {
 public:
  using Prompt = std::string (*)(const std::string& question);  // vqa_prompt or mmstar_prompt

  QuestionCollator(PromptTokenizer text, const CollateOptions& options, Prompt prompt,
                   std::shared_ptr<PictureCache> cache = nullptr)
      : Collator(std::move(text), options, std::move(cache)), prompt_(prompt) {}
  Batch collate(std::span<const Sample> samples, const Device& host) const override;

  // The answers' tokens with the end token, [B, A] i32, padded on the left: the reference's labels.
  Tensor answers(std::span<const Sample> samples, const Device& host) const;

 private:
  void tokenize(Sample& sample) const override;

  Prompt prompt_;
};

}  // namespace nanovlm
