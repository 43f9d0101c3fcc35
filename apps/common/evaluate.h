// How good a model is on a data set: its loss, or the answers it gives.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "data/loader.h"
#include "model/generate.h"
#include "model/vision_language_model.h"

namespace nanovlm {

// Rows of a data set, in the file's order, and how they are made into batches.
struct EvaluationData {
  std::shared_ptr<const RecordSource> source;
  std::vector<int64_t> rows;
  std::shared_ptr<const Collator> collator;  // VqaCollator for the loss, QuestionCollator for answers
  int64_t batch_size = 64;
  int workers = 1;
  double max_bad_share = 0.1;  // of records; with more it ends early: see `stopped`
  bool drop_last = false;
  bool skip_without_target = true;  // batches in which no label counts; else the loss of such a one is NaN
};

struct EvaluationOptions {
  DType dtype = DType::f32;
  bool blind = false;       // every picture is replaced by a grey one
  int64_t max_batches = 0;  // 0: all
  std::function<void(int64_t rows_done, int64_t rows)> progress;
};

// What a blind run sees: 0.5 everywhere, a pixel's middle value.
void hide_pictures(Batch& batch);

struct LossResult {
  double mean_of_batches = 0;  // the reference's val_loss: every batch counts alike
  double mean_of_tokens = 0;   // every label counts alike
  int64_t batches = 0, targets = 0;
  LoaderReport loaded;
  std::string stopped;  // why the data ended before their end; empty: they did not
};

// Nothing is recorded for gradients. Error: every batch was skipped.
LossResult evaluate_loss(const VisionLanguageModel& model, const EvaluationData& data,
                         const EvaluationOptions& options);

struct Answered {
  int64_t row;  // of the data's source
  std::string question, prediction, answer;
  bool correct;
};

struct Tally {
  int64_t right = 0, asked = 0;
  double share() const { return asked ? static_cast<double>(right) / static_cast<double>(asked) : 0; }
};

struct AnswersResult {
  std::vector<Answered> answers;       // in the data's order
  Tally all;                           // right answers of all questions
  std::map<std::string, Tally> kinds;  // by what is asked for: "yes/no", "number", "other"

  // What answers without a look at the picture are right: the commonest of the data set, given to every question; and
  // to each wording of a question its own commonest.
  std::string commonest_answer;
  Tally commonest, commonest_by_question;
  LoaderReport loaded;
  std::string stopped;  // as LossResult's
};

// Whether a prediction (without special tokens, white space trimmed at both ends) answers a question.
using AnswerRule = std::function<bool(const std::string& prediction, const std::string& answer)>;
bool is_exact_match(const std::string& prediction, const std::string& answer);

// Continues every question and judges what comes. generation.dtype is overruled by options.dtype.
AnswersResult evaluate_answers(const VisionLanguageModel& model, const EvaluationData& data, const Tokenizer& tokenizer,
                               const AnswerRule& rule, GenerateOptions generation, const EvaluationOptions& options);

// The text of generated tokens without special ones. A model may have more tokens than its tokenizer; these have no
// text.
std::string text_of(const Tokenizer& tokenizer, const std::vector<int32_t>& tokens);

}  // namespace nanovlm
