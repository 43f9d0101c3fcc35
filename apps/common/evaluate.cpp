#include "apps/common/evaluate.h"

#include <algorithm>
#include <limits>

#include "engine/autograd.h"

namespace nanovlm {
namespace {

Loader open_loader(const EvaluationData& data) {
  LoaderOptions options;
  options.batch_size = data.batch_size;
  options.shuffle = false;
  options.drop_last = data.drop_last;
  options.skip_without_target = data.skip_without_target;
  options.workers = data.workers;
  options.max_bad_share = data.max_bad_share;
  return Loader(data.source, data.rows, data.collator, options);
}

// Calls f(batch) for every batch of the data, up to the limit. What was made of the batches before an error of the
// loader is worth keeping, so that such an error is written to result.stopped.
template <class Result, class F>
void for_each_batch(const EvaluationData& data, const EvaluationOptions& options, Result& result, const F& f) {
  Loader loader = open_loader(data);
  for (int64_t n = 0; options.max_batches == 0 || n < options.max_batches; ++n) {
    std::optional<LoadedBatch> batch;
    try {
      batch = loader.next();
    } catch (const Error& error) {
      result.stopped = error.what();
    }
    if (!batch) break;
    if (options.blind) hide_pictures(batch->batch);
    f(*batch);
    if (options.progress) options.progress(loader.report().rows, loader.rows());
  }
  result.loaded = loader.report();
}

template <class Result>
std::string why_none(const Result& result) {
  return result.stopped.empty() ? result.loaded.text() : result.stopped;
}

std::string trimmed(const std::string& s) {
  constexpr const char* kSpace = " \t\r\n\v\f";
  const size_t begin = s.find_first_not_of(kSpace);
  return begin == s.npos ? "" : s.substr(begin, s.find_last_not_of(kSpace) - begin + 1);
}

std::string kind_of(const std::string& answer) {
  std::string lower = answer;
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  if (lower == "yes" || lower == "no") return "yes/no";
  const bool digits = std::all_of(lower.begin(), lower.end(), [](char c) { return c >= '0' && c <= '9'; });
  return digits && !lower.empty() ? "number" : "other";
}

// How often each answer is given.
class Commonest {
 public:
  void count(const std::string& answer) { ++counts_[answer]; }
  const std::pair<const std::string, int64_t>& get() const {
    return *std::max_element(counts_.begin(), counts_.end(),
                             [](const auto& a, const auto& b) { return a.second < b.second; });
  }

 private:
  std::map<std::string, int64_t> counts_;
};

void tally(AnswersResult& result) {
  Commonest overall;
  std::map<std::string, Commonest> by_question;
  for (const Answered& a : result.answers) {
    Tally& kind = result.kinds[kind_of(a.answer)];
    for (Tally* t : {&result.all, &kind}) t->right += a.correct, ++t->asked;
    overall.count(a.answer);
    by_question[a.question].count(a.answer);
  }
  result.commonest_answer = overall.get().first;
  result.commonest = {overall.get().second, result.all.asked};
  result.commonest_by_question.asked = result.all.asked;
  for (const auto& [question, answers] : by_question) result.commonest_by_question.right += answers.get().second;
}

}  // namespace

void hide_pictures(Batch& batch) {
  const std::vector<float> grey(static_cast<size_t>(batch.images.numel()), 0.5f);
  batch.images = from_host(grey, batch.images.shape(), batch.images.device());
}

LossResult evaluate_loss(const VisionLanguageModel& model, const EvaluationData& data,
                         const EvaluationOptions& options) {
  const NoGrad no_grad(model.device());
  Forward run;
  run.dtype = options.dtype;
  LossResult result;
  double sum_of_batches = 0, sum_of_tokens = 0;
  for_each_batch(data, options, result, [&](const LoadedBatch& loaded) {
    const bool unlabelled = loaded.targets == 0;
    if (unlabelled && data.skip_without_target) return;
    const double loss = unlabelled ? std::numeric_limits<double>::quiet_NaN() : model.loss(loaded.batch, run).item();
    sum_of_batches += loss;
    sum_of_tokens += loss * static_cast<double>(loaded.targets);
    result.targets += loaded.targets;
    ++result.batches;
  });
  check(result.batches > 0, "evaluation: expected labels that count, found none: ", why_none(result));
  result.mean_of_batches = sum_of_batches / static_cast<double>(result.batches);
  result.mean_of_tokens = sum_of_tokens / static_cast<double>(result.targets);
  return result;
}

bool is_exact_match(const std::string& prediction, const std::string& answer) { return prediction == trimmed(answer); }

AnswersResult evaluate_answers(const VisionLanguageModel& model, const EvaluationData& data, const Tokenizer& tokenizer,
                               const AnswerRule& rule, GenerateOptions generation, const EvaluationOptions& options) {
  generation.dtype = options.dtype;
  AnswersResult result;
  for_each_batch(data, options, result, [&](const LoadedBatch& loaded) {
    const auto texts = generate(model, loaded.batch, generation);
    // Another seed for every batch: sequence s of each draws from the same stream.
    ++generation.seed;
    for (size_t b = 0; b < texts.size(); ++b) {
      const Sample& sample = loaded.samples[b];
      const std::string prediction = trimmed(text_of(tokenizer, texts[b]));
      result.answers.push_back(
          {sample.row, sample.question, prediction, sample.answer, rule(prediction, sample.answer)});
    }
  });
  check(!result.answers.empty(), "evaluation: expected questions, found none: ", why_none(result));
  tally(result);
  return result;
}

std::string text_of(const Tokenizer& tokenizer, const std::vector<int32_t>& tokens) {
  std::vector<int32_t> known;
  std::copy_if(tokens.begin(), tokens.end(), std::back_inserter(known),
               [&](int32_t id) { return id < tokenizer.vocab_size(); });
  return tokenizer.decode(known, true);
}

}  // namespace nanovlm
