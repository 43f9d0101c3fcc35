#include "apps/train/run.h"

#include <sys/resource.h>

#include <cmath>
#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>

#include "apps/common/dataset_argument.h"
#include "apps/common/loaded_model.h"
#include "apps/common/output.h"
#include "apps/common/pretrained.h"
#include "apps/train/start.h"
#include "data/survey.h"
#include "model/weights.h"

namespace nanovlm::training {
namespace {

// nanoVLM's get_run_name.
std::string reference_name(const TrainConfig& train, int64_t samples) {
  char date[8];
  const std::time_t now = std::time(nullptr);
  std::strftime(date, sizeof date, "%m%d", std::localtime(&now));
  return text("nanoVLM_1xGPU_", samples, "samples_bs", train.batch_size * train.gradient_accumulation_steps, "_ep",
              train.epochs, "_lr", train.lr_backbones, "-", train.lr_mp, "_", date);
}

bool as_reference(const TrainConfig& train) { return train.compat == "nanovlm-v1"; }

CollateOptions collate_options(const TrainConfig& train, const VLMConfig& vlm) {
  return CollateOptions::of(train.compat, vlm.vit_img_size, vlm.lm_max_length);
}

constexpr int64_t kRowsMixed = 1000;  // about ten of the Hub's row groups, which the page cache holds

RowOrder row_order(const TrainConfig& train) {
  if (train.shuffle == "reference" || as_reference(train)) return RowOrder::reference;
  return train.shuffle == "none" ? RowOrder::stored : RowOrder::shuffled;
}

// A run in which most samples teach nothing would look like any other. Looks at the first samples of those for
// training, which --shuffle has put in an order.
void check_loss(const Dataset& data, const Split& split, const PromptTokenizer& tokenizer, const TrainConfig& train,
                const VLMConfig& vlm) {
  constexpr size_t kLookedAt = 256;
  std::vector<int64_t> rows = split.train;
  rows.resize(std::min(rows.size(), kLookedAt));
  SurveyOptions options;
  options.collate = collate_options(train, vlm);
  options.workers = static_cast<int>(train.workers);
  const SurveyCounts found = survey(data, rows, tokenizer, options).all;
  check(found.without_loss_share() <= train.max_no_loss_share, "data set: ", found.without_loss, " of ", found.samples,
        " samples carry no loss, but at most ", train.max_no_loss_share * 100, " % may (--max_no_loss_share); ",
        found.over_long, " are longer than lm_max_length ", vlm.lm_max_length, ", the median is ", found.length_at(0.5),
        " tokens (inspect data shows more)");
}

LoaderOptions loader_options(const TrainConfig& train) {
  LoaderOptions options;
  options.batch_size = train.batch_size;
  options.epochs = train.epochs;
  options.seed = static_cast<uint64_t>(train.seed);
  options.shuffle = row_order(train) != RowOrder::stored;
  options.reference_order = row_order(train) == RowOrder::reference;
  if (train.shuffle == "blocks") options.rows_mixed = kRowsMixed;
  options.same_order_every_epoch = as_reference(train) || !train.reshuffle;
  options.skip_without_target = !as_reference(train);
  options.workers = static_cast<int>(train.workers);
  options.max_bad_share = train.max_bad_share;
  return options;
}

int64_t peak_resident_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss / 1024;
}

}  // namespace

Run::Run(const Settings& settings, const RunConfig& config)
    : settings_(settings),
      train_(config.train),
      warnings_(config.warnings),
      device_(settings.device.open(warnings_)),
      log_(settings.out),
      model_(starting_model(config, device_, warnings_)) {
  for (const std::string& warning : warnings_) log_.note("warning: " + warning);
  say(nanovlm::describe(config));
  open_batches(config);
  make_trainer();
  log_.begin();
}

void Run::open_batches(const RunConfig& config) {
  if (settings_.batches.empty())
    open_dataset_batches(config);
  else
    source_ = std::make_unique<FileBatches>(settings_.batches, settings_.micro_batches_per_epoch, train_);
  const int64_t micro = source_->micro_batches_per_epoch(), k = train_.gradient_accumulation_steps;
  const int64_t all = ceil_div(micro, k) * train_.epochs;
  steps_ = train_.max_training_steps > 0 ? std::min(all, train_.max_training_steps) : all;
}

void Run::open_dataset_batches(const RunConfig& config) {
  const VLMConfig& vlm = model_.config;
  const auto rows = open_dataset_argument(settings_.train_dataset);
  const Split split = split_rows(
      *rows, {static_cast<uint64_t>(train_.seed), train_.data_cutoff_idx, train_.val_ratio, row_order(train_)});
  std::vector<std::string> warnings;
  const std::string folder = tokenizer_folder(config, vlm);
  const PromptTokenizer tokenizer = load_tokenizer(settings_.tokenizer, folder, vlm, warnings);
  tokenizer_files_ = tokenizer_files(settings_.tokenizer, folder, vlm);
  for (const std::string& warning : warnings) log_.note("warning: " + warning);

  if (!as_reference(train_)) check_loss(*rows, split, tokenizer, train_, vlm);

  const auto cache = std::make_shared<PictureCache>(train_.picture_cache_mib << 20, train_.picture_cache_folder);
  const auto collator = std::make_shared<VqaCollator>(tokenizer, collate_options(train_, vlm), cache);
  source_ = std::make_unique<DatasetBatches>(
      std::make_unique<Loader>(rows, split.train, collator, loader_options(train_)), train_);
  if (!split.validation.empty())
    validation_ = {rows,
                   split.validation,
                   collator,
                   train_.batch_size,
                   static_cast<int>(train_.workers),
                   train_.max_bad_share,
                   as_reference(train_) && static_cast<int64_t>(split.validation.size()) >= train_.batch_size,
                   !as_reference(train_)};
  const auto samples = static_cast<int64_t>(split.train.size());
  name_ = settings_.run_name.empty() ? reference_name(train_, samples) : settings_.run_name;
}

void Run::make_trainer() {
  const bool ready_batches = !settings_.batches.empty();
  TrainerOptions options;
  options.lr_mp = train_.lr_mp;
  options.lr_backbones = train_.lr_backbones;
  options.lr_vision_backbone = train_.lr_vision_backbone;
  options.lr_language_backbone = train_.lr_language_backbone;
  options.freeze_at_zero = options.refuse_unlabelled = !as_reference(train_);
  options.max_grad_norm = train_.max_grad_norm;
  // The reference counts its schedule in micro-batches and advances it by steps: with accumulation only a part is run.
  const bool reference_schedule = as_reference(train_) || ready_batches;
  options.max_steps = reference_schedule ? source_->micro_batches_per_epoch() * train_.epochs : steps_;
  options.dtype = dtype_of(train_.dtype);
  options.padding = train_.dense || ready_batches ? Padding::dense : Padding::packed;
  options.vision_cache_bytes = train_.vision_cache_mib << 20;
  options.recorded = settings_.cuda_graph;
  options.adamw.beta2 = train_.beta2;
  options.adamw.weight_decay = train_.weight_decay;
  trainer_ = std::make_unique<Trainer>(model_, options);
}

void Run::describe() {
  say(text("nanoVLM initialized with ", model_.parameter_count(), " parameters"));
  const std::string summary = source_->summary();
  if (!summary.empty()) say("Training summary: " + summary);
  if (validation_.source)
    say(text("Validation summary: ", validation_.rows.size(), " samples, batch size ", train_.batch_size));
  say("Using device: " + device_.name());
  say("Run: " + name_);
}

void Run::train() {
  Epoch epoch;
  epoch.start = log_.seconds();
  StepBatches upcoming = source_->next();
  check(!upcoming.batches.empty(), "the data gave no batch");
  for (int64_t step = 0; step < steps_; ++step) {
    const StepBatches work = std::move(upcoming);
    // The reference validates with every micro-batch of a step: only the last of them sees its update.
    if (as_reference(train_) && work.batches.size() > 1 && validation_due(step))
      validation_loss(step, work.batches.size() - 1);
    const double start = log_.seconds();
    for (const std::string& line : source_->notes()) log_.note(line);
    const StepResult result = take(work, step, [&] {
      upcoming = step + 1 < steps_ ? source_->next() : StepBatches();
      if (!device_.is_host() && !upcoming.batches.empty()) trainer_->stage(upcoming.batches);
    });

    const bool last = upcoming.batches.empty();
    if (last && step + 1 < steps_) {  // records that were left out had been counted as samples
      log_.note(text("the data ended after ", step + 1, " of ", steps_, " steps"));
      steps_ = step + 1;
    }

    const double seconds = log_.seconds() - start;
    const int64_t tokens = work.tokens(model_.config.image_tokens());
    const double tokens_per_second = static_cast<double>(tokens) / seconds;
    samples_ += work.samples();
    loss_ = result.losses.back();
    record(step, result, tokens_per_second);
    // Tokens/s and the share of waiting are the step's; samples/s, which jump about less, the run's.
    log_.show({step + 1, steps_, loss_, result.lr_backbones, tokens_per_second,
               static_cast<double>(samples_) / log_.seconds(), work.wait_seconds / seconds});

    for (const double loss : result.losses) epoch.loss += loss;
    epoch.micro_batches += static_cast<int64_t>(result.losses.size());
    epoch.tokens += tokens;
    if (validation_due(step)) validate(step, tokens_per_second);
    if (work.epoch_ends || step + 1 == steps_) end_epoch(step, epoch);
  }
}

// The reference looks at its untrained model, and not at its last.
bool Run::validation_due(int64_t step) const {
  if (!train_.eval_in_epochs || !validation_.source) return false;
  const bool in_turn = step % train_.eval_interval == 0;
  return as_reference(train_) ? in_turn : step + 1 == steps_ || (step > 0 && in_turn);
}

StepResult Run::take(const StepBatches& work, int64_t step, const std::function<void()>& meanwhile) {
  try {
    return trainer_->step(work.batches, train_.gradient_accumulation_steps, meanwhile);
  } catch (const NonFiniteLoss& error) {
    const Batch& batch = work.batches[error.micro_batch];
    const std::string file = settings_.out + "/bad_batch.safetensors";
    std::vector<std::pair<std::string, Tensor>> tensors = {
        {"images", unit_range(batch.images)}, {"input_ids", batch.input_ids}, {"labels", batch.labels}};
    if (batch.attention_mask.defined()) tensors.emplace_back("attention_mask", batch.attention_mask);
    write_safetensors(file, tensors);
    fail(error.what(), "; step ", step, "'s batch is in ", file);
  }
}

void Run::record(int64_t step, const StepResult& result, double tokens_per_second) {
  for (size_t i = 0; i < result.losses.size(); ++i) {
    nlohmann::json line = {{"step", step}, {"batch_loss", result.losses[i]}, {"tokens_per_second", tokens_per_second}};
    if (i + 1 == result.losses.size()) {
      line["lr_mp"] = result.lr_mp;
      line["lr_backbones"] = result.lr_backbones;
      if (result.grad_norm) line["grad_norm"] = *result.grad_norm;
    }
    log_.write(line);
  }
}

void Run::validate(int64_t step, double tokens_per_second) {
  const auto val_loss = validation_loss(step, 1);
  if (!val_loss) return;
  char line[160];
  std::snprintf(line, sizeof line, "Step: %lld, Loss: %.4f, Val Loss: %.4f, Tokens/s: %.2f",
                static_cast<long long>(step), loss_, *val_loss, tokens_per_second);
  say(line);
}

std::optional<double> Run::validation_loss(int64_t step, size_t times) {
  EvaluationOptions options;
  options.dtype = dtype_of(train_.dtype);
  options.blind = train_.blind;
  options.max_batches = train_.eval_batches;
  double val_loss = 0;
  try {
    const LossResult result = evaluate_loss(model_, validation_, options);
    check(result.stopped.empty(), result.stopped);
    val_loss = result.mean_of_batches;
  } catch (const Error& error) {  // of the validation data: no reason to lose what was learnt
    ++failed_validations_;
    log_.note(text("warning: step ", step, " has no validation loss: ", one_line(error.what())));
    return std::nullopt;
  }
  for (size_t i = 0; i < times; ++i) log_.write({{"step", step}, {"val_loss", val_loss}});
  if (std::isfinite(val_loss) && (!best_ || val_loss < *best_)) {
    best_ = val_loss;
    save_checkpoint(model_, settings_.out + "/best", tokenizer_files_);
  }
  return val_loss;
}

void Run::end_epoch(int64_t step, Epoch& epoch) {
  const double duration = log_.seconds() - epoch.start, loss = epoch.loss / static_cast<double>(epoch.micro_batches);
  const double tokens_per_second = static_cast<double>(epoch.tokens) / duration;
  log_.write({{"step", step},
              {"epoch", epoch.number},
              {"epoch_loss", loss},
              {"epoch_duration", duration},
              {"epoch_tokens_per_second", tokens_per_second}});
  char line[160];
  std::snprintf(line, sizeof line, "Epoch %lld/%lld, Train Loss: %.4f | Time: %.2fs | T/s: %.2f",
                static_cast<long long>(epoch.number), static_cast<long long>(train_.epochs), loss, duration,
                tokens_per_second);
  say(line);
  const int64_t following = epoch.number + 1;
  epoch = {};
  epoch.number = following;
  epoch.start = log_.seconds();
}

void Run::finish() {
  const std::string last = settings_.out + "/last";
  save_checkpoint(model_, last, tokenizer_files_);
  const double seconds = log_.seconds();
  const std::string report = source_->report();
  if (!report.empty()) log_.note(report);
  if (const VisionCache* cache = trainer_->vision_cache()) {
    const VisionCache::Counts& counts = cache->counts();
    log_.note(text("vision encoder: ", counts.found, " of ", counts.asked, " outputs were kept ones, ",
                   counts.kept_bytes >> 20, " MiB"));
  }
  log_.note("memory: " + device_.context().memory_text() + text("; resident at most ", peak_resident_mib(), " MiB"));
  nlohmann::json summary = {
      {"steps", steps_},     {"seconds", seconds},
      {"samples", samples_}, {"avg_time_per_sample", seconds / static_cast<double>(std::max<int64_t>(samples_, 1))},
      {"loss", loss_},       {"checkpoint", last},
      {"run", name_},        {"peak_resident_mib", peak_resident_mib()}};
  if (best_) summary["best_val_loss"] = *best_;
  if (failed_validations_ > 0) {
    summary["failed_validations"] = failed_validations_;
    log_.note(text("warning: ", failed_validations_, " validations failed",
                   best_ ? "" : ", so that there is no best/; the trained model is in last/"));
  }
  log_.write({{"summary", summary}});
  if (settings_.json) {
    print_json(summary);
    std::cout.flush();
  }
  say(text("Saved ", last));
  push();
}

void Run::push() {
  if (settings_.hub_repo.empty()) return;
  const std::string checkpoint = settings_.out + (best_ ? "/best" : "/last");
  say("Training complete. Pushing model to Hugging Face Hub...");
  try {
    say("Pushed to " + push_to_hub(checkpoint, settings_.hub_repo, settings_.hub_private));
  } catch (const Error& error) {
    fail(checkpoint, ": saved, but not pushed: ", error.what());
  }
}

void Run::say(const std::string& line) {
  if (settings_.json) return log_.note(line);
  log_.end_line();
  std::cout << line << std::endl;
}

}  // namespace nanovlm::training
