// Trains a vision-language model, as nanoVLM's train.py.
//
//   train --config FILE.json --train_dataset PATH... --out DIR [--device cpu] [any field of either config as --field
//   value] train --batches FILE.safetensors ...      on micro-batches kept in a file, as the reference's: dense rows,
//   and a
//                                             schedule counted in micro-batches
//
// Leaves in DIR: metrics.jsonl, last/ (the model at the end) and best/ (the one with the lowest validation loss).
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "apps/common/evaluate.h"
#include "apps/common/loaded_model.h"
#include "apps/common/run_log.h"
#include "apps/common/train_config.h"
#include "data/batch_file.h"
#include "data/dataset.h"
#include "model/trainer.h"
#include "model/weights.h"

using namespace nanovlm;

namespace {

struct Arguments {
  std::string config, checkpoint, out, device = "cpu", batches, tokenizer, run_name;
  std::vector<std::string> train_dataset;
  std::map<std::string, std::string> fields;
  int64_t micro_batches_per_epoch = 0;
  bool json = false;
};

Arguments parse(int argc, char** argv) {
  Arguments a;
  CLI::App app{"Trains a vision-language model"};
  app.add_option("--config", a.config, "JSON: {\"vlm\": {...}, \"train\": {...}}, or a nanoVLM config.json");
  app.add_option("--checkpoint", a.checkpoint,
                 "start from this folder's weights; the same as --resume_from_vlm_checkpoint true with "
                 "--vlm_checkpoint_path");
  app.add_option("--train_dataset", a.train_dataset, ".jsonl files, or folders that hold train.jsonl");
  app.add_option("--batches", a.batches, "micro-batches from a safetensors file, instead of a data set");
  app.add_option("--micro_batches_per_epoch", a.micro_batches_per_epoch, "of --batches; default: all, over the epochs");
  app.add_option(
      "--tokenizer", a.tokenizer,
      "tokenizer.json, or its folder; default: lm_tokenizer where that is a folder, else the one in assets/");
  app.add_option("--device", a.device, "cpu, simt or cuda")->capture_default_str();
  app.add_option("--out", a.out, "folder for the checkpoints and metrics.jsonl")->required();
  app.add_option("--run_name", a.run_name, "default: as nanoVLM names its runs");
  app.add_flag("--json", a.json, "one JSON object on stdout at the end");
  for (const std::string& field : run_config_fields())
    app.add_option_function<std::string>("--" + field,
                                         [&a, field](const std::string& value) { a.fields[field] = value; })
        ->group("Fields of the configuration");
  try {
    app.parse(argc, argv);
    if (a.batches.empty() == a.train_dataset.empty())
      throw CLI::ValidationError("give either --train_dataset or --batches");
    if (!a.checkpoint.empty()) {
      a.fields["resume_from_vlm_checkpoint"] = "true";
      a.fields["vlm_checkpoint_path"] = a.checkpoint;
    }
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error) == 0 ? 0 : 2);
  }
  return a;
}

// The groups of micro-batches that make one step each, epoch after epoch.
class Source {
 public:
  virtual ~Source() = default;
  struct Step {
    std::vector<Batch> batches;
    double wait_seconds = 0;
    bool epoch_ends = false;
  };
  virtual Step next() = 0;
  virtual int64_t micro_batches_per_epoch() const = 0;
};

class FileSource : public Source {
 public:
  FileSource(const Arguments& a, const TrainConfig& train)
      : file_(a.batches),
        accumulation_(train.gradient_accumulation_steps),
        per_epoch_(a.micro_batches_per_epoch ? a.micro_batches_per_epoch : file_.size() / train.epochs) {
    check(per_epoch_ > 0 && per_epoch_ * train.epochs <= file_.size(), a.batches, ": holds ", file_.size(),
          " micro-batches, but ", train.epochs, " epochs of ", per_epoch_, " are asked for");
  }
  Step next() override {
    Step step;
    while (static_cast<int64_t>(step.batches.size()) < accumulation_ && !step.epoch_ends) {
      step.batches.push_back(file_.read(at_++));
      step.epoch_ends = at_ % per_epoch_ == 0;
    }
    return step;
  }
  int64_t micro_batches_per_epoch() const override { return per_epoch_; }

 private:
  BatchFile file_;
  int64_t accumulation_, per_epoch_, at_ = 0;
};

class DatasetSource : public Source {
 public:
  DatasetSource(std::unique_ptr<Loader> loader, const TrainConfig& train)
      : loader_(std::move(loader)), blind_(train.blind), accumulation_(train.gradient_accumulation_steps) {
    ahead_ = loader_->next();
  }
  Step next() override {
    Step step;
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
  int64_t micro_batches_per_epoch() const override { return loader_->batches_per_epoch(); }
  Loader& loader() { return *loader_; }

  // What was left out lately, and why; after the first few only the count at the end of the run tells.
  std::vector<std::string> notes() {
    std::vector<std::string> lines;
    for (const Skip& skip : loader_->take_skipped())
      if (++skipped_ <= kSkipsShown) lines.push_back("left out: " + skip.message);
    return lines;
  }

 private:
  std::unique_ptr<Loader> loader_;
  bool blind_;
  static constexpr int64_t kSkipsShown = 10;
  int64_t accumulation_, skipped_ = 0;
  std::optional<LoadedBatch> ahead_;  // read one batch early, to know where an epoch ends
};

// nanoVLM's get_run_name.
std::string run_name(const TrainConfig& train, int64_t samples) {
  char date[8];
  const std::time_t now = std::time(nullptr);
  std::strftime(date, sizeof date, "%m%d", std::localtime(&now));
  return text("nanoVLM_1xGPU_", samples, "samples_bs", train.batch_size * train.gradient_accumulation_steps, "_ep",
              train.epochs, "_lr", train.lr_backbones, "-", train.lr_mp, "_", date);
}

// nanoVLM's count: text tokens without padding, and the picture's.
int64_t token_count(const Batch& batch, int64_t picture_tokens) {
  int64_t tokens = batch.size() * picture_tokens;
  if (!batch.attention_mask.defined()) return tokens + batch.input_ids.numel();
  for (int64_t i = 0; i < batch.attention_mask.numel(); ++i) tokens += batch.attention_mask.u8()[i];
  return tokens;
}

VisionLanguageModel make_model(const RunConfig& config, const Device& device, std::vector<std::string>& warnings) {
  if (config.train.resume_from_vlm_checkpoint) {
    VisionLanguageModel model(load_config(config.vlm.vlm_checkpoint_path, warnings), device);
    load_weights(model, config.vlm.vlm_checkpoint_path + "/model.safetensors", warnings);
    return model;
  }
  VisionLanguageModel model(config.vlm, device);
  model.initialise(static_cast<uint64_t>(config.train.seed),
                   config.train.init == "balanced" ? Init::balanced : Init::nanovlm);
  return model;
}

class Run {
 public:
  Run(const Arguments& arguments, const RunConfig& config)
      : arguments_(arguments),
        train_(config.train),
        vlm_(config.vlm),
        device_(Device::open(arguments.device)),
        log_(arguments.out),
        model_(make_model(config, device_, warnings_)) {
    warnings_.insert(warnings_.begin(), config.warnings.begin(), config.warnings.end());
    for (const std::string& warning : warnings_) log_.note("warning: " + warning);
    vlm_ = model_.config;
  }

  void prepare() {
    v1_ = train_.compat == "nanovlm-v1";
    if (!arguments_.batches.empty())
      source_ = std::make_unique<FileSource>(arguments_, train_);
    else
      open_datasets();
    const int64_t micro = source_->micro_batches_per_epoch(), k = train_.gradient_accumulation_steps;
    const int64_t all = (micro + k - 1) / k * train_.epochs;
    steps_ = train_.max_training_steps > 0 ? std::min(all, train_.max_training_steps) : all;

    TrainerOptions options;
    options.lr_mp = train_.lr_mp;
    options.lr_backbones = train_.lr_backbones;
    options.max_grad_norm = train_.max_grad_norm;
    // The reference counts its schedule in micro-batches and advances it by steps: with accumulation only a part is
    // run.
    const bool reference_schedule = v1_ || !arguments_.batches.empty();
    options.max_steps = reference_schedule ? micro * train_.epochs : steps_;
    options.dtype = dtype_of(train_.dtype);
    options.padding = train_.dense || !arguments_.batches.empty() ? Padding::dense : Padding::packed;
    options.adamw.beta2 = train_.beta2;
    options.adamw.weight_decay = train_.weight_decay;
    trainer_ = std::make_unique<Trainer>(model_, options);
  }

  void describe_run() {
    say(text("nanoVLM initialized with ", model_.parameter_count(), " parameters"));
    if (DatasetSource* data = dataset())
      say(text("Training summary: ", data->loader().rows(), " samples, ", source_->micro_batches_per_epoch(),
               " batches/epoch, batch size ", train_.batch_size));
    if (validation_.source)
      say(text("Validation summary: ", validation_.rows.size(), " samples, batch size ", train_.batch_size));
    say("Using device: " + device_.name());
    say("Run: " + name_);
  }

  void loop() {
    double epoch_loss = 0, epoch_start = log_.seconds();
    int64_t epoch = 1, epoch_steps = 0, epoch_tokens = 0;
    for (int64_t step = 0; step < steps_; ++step) {
      const double start = log_.seconds();
      const Source::Step work = source_->next();
      if (work.batches.empty()) {  // records that were left out had been counted as samples
        check(step > 0, "the data gave no batch");
        log_.note(text("the data ended after ", step, " of ", steps_, " steps"));
        steps_ = step;
        break;
      }
      if (DatasetSource* data = dataset())
        for (const std::string& line : data->notes()) log_.note(line);
      const StepResult result = take(work.batches, step);
      const double seconds = log_.seconds() - start;
      int64_t tokens = 0, samples = 0;
      for (const Batch& batch : work.batches)
        tokens += token_count(batch, vlm_.image_tokens()), samples += batch.size();
      record(step, result, static_cast<double>(tokens) / seconds);
      for (const double loss : result.losses) epoch_loss += loss / static_cast<double>(result.losses.size());
      ++epoch_steps;
      epoch_tokens += tokens;
      total_samples_ += samples;
      // The last validation counts as the run's; a step's own pace jumps about, so the line shows the run's average.
      log_.show({step + 1, steps_, result.losses.back(), result.lr_backbones, static_cast<double>(tokens) / seconds,
                 static_cast<double>(total_samples_) / log_.seconds(), work.wait_seconds / seconds});
      last_loss_ = result.losses.back();
      const bool last = step + 1 == steps_;
      if (train_.eval_in_epochs && validation_.source && (last || (step > 0 && step % train_.eval_interval == 0)))
        validate(step, static_cast<double>(tokens) / seconds);
      if (work.epoch_ends || last) {
        const double duration = log_.seconds() - epoch_start;
        log_.write({{"step", step},
                    {"epoch", epoch},
                    {"epoch_loss", epoch_loss / static_cast<double>(epoch_steps)},
                    {"epoch_duration", duration},
                    {"epoch_tokens_per_second", static_cast<double>(epoch_tokens) / duration}});
        char line[160];
        std::snprintf(line, sizeof line, "Epoch %lld/%lld, Train Loss: %.4f | Time: %.2fs | T/s: %.2f",
                      static_cast<long long>(epoch), static_cast<long long>(train_.epochs),
                      epoch_loss / static_cast<double>(epoch_steps), duration,
                      static_cast<double>(epoch_tokens) / duration);
        say(line);
        ++epoch, epoch_steps = 0, epoch_tokens = 0, epoch_loss = 0, epoch_start = log_.seconds();
      }
    }
  }

  void finish() {
    const std::string last = arguments_.out + "/last";
    save_checkpoint(model_, last);
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const double seconds = log_.seconds();
    if (DatasetSource* data = dataset()) log_.note(data->loader().report().text());
    log_.note("memory: " + device_.context().memory.report().text() +
              text("; resident at most ", usage.ru_maxrss / 1024, " MiB"));
    nlohmann::json summary = {
        {"steps", steps_},
        {"seconds", seconds},
        {"samples", total_samples_},
        {"avg_time_per_sample", seconds / static_cast<double>(std::max<int64_t>(total_samples_, 1))},
        {"loss", last_loss_},
        {"checkpoint", last},
        {"run", name_},
        {"peak_resident_mib", usage.ru_maxrss / 1024}};
    if (best_) summary["best_val_loss"] = *best_;
    log_.write({{"summary", summary}});
    if (arguments_.json) std::cout << summary.dump() << std::endl;
    say(text("Saved ", last));
  }

  void say(const std::string& line) {
    if (arguments_.json)
      log_.note(line);
    else
      std::cout << line << std::endl;
  }

 private:
  DatasetSource* dataset() { return dynamic_cast<DatasetSource*>(source_.get()); }

  void open_datasets() {
    const auto source = open_dataset(arguments_.train_dataset);
    const Split split =
        split_rows(source->size(), static_cast<uint64_t>(train_.seed), train_.data_cutoff_idx, train_.val_ratio);
    std::vector<std::string> warnings;
    const PromptTokenizer text = load_tokenizer(arguments_.tokenizer, vlm_.lm_tokenizer, vlm_, warnings);
    for (const std::string& warning : warnings) log_.note("warning: " + warning);
    CollateOptions collate = CollateOptions::nanovlm_v1(vlm_.vit_img_size, vlm_.lm_max_length);
    if (!v1_) {
      collate = {};
      collate.image_size = vlm_.vit_img_size;
      collate.max_length = vlm_.lm_max_length;
    }
    const auto cache = std::make_shared<PictureCache>(int64_t{256} << 20);
    const auto collator = std::make_shared<VqaCollator>(text, collate, cache);
    LoaderOptions loader;
    loader.batch_size = train_.batch_size;
    loader.epochs = train_.epochs;
    loader.seed = static_cast<uint64_t>(train_.seed);
    loader.same_order_every_epoch = v1_;
    loader.workers = static_cast<int>(train_.workers);
    loader.max_bad_share = train_.max_bad_share;
    source_ = std::make_unique<DatasetSource>(std::make_unique<Loader>(source, split.train, collator, loader), train_);
    if (!split.validation.empty())
      validation_ = {source, split.validation, collator, train_.batch_size, static_cast<int>(train_.workers)};
    name_ =
        arguments_.run_name.empty() ? run_name(train_, static_cast<int64_t>(split.train.size())) : arguments_.run_name;
  }

  StepResult take(const std::vector<Batch>& batches, int64_t step) {
    try {
      return trainer_->step(batches, train_.gradient_accumulation_steps);
    } catch (const NonFiniteLoss& error) {
      const Batch& batch = batches[error.micro_batch];
      const std::string file = arguments_.out + "/bad_batch.safetensors";
      std::vector<std::pair<std::string, Tensor>> tensors = {
          {"images", batch.images}, {"input_ids", batch.input_ids}, {"labels", batch.labels}};
      if (batch.attention_mask.defined()) tensors.emplace_back("attention_mask", batch.attention_mask);
      write_safetensors(file, tensors);
      fail(error.what(), "; step ", step, "'s batch is in ", file);
    }
  }

  void record(int64_t step, const StepResult& result, double tokens_per_second) {
    for (size_t i = 0; i < result.losses.size(); ++i) {
      nlohmann::json line = {
          {"step", step}, {"batch_loss", result.losses[i]}, {"tokens_per_second", tokens_per_second}};
      if (i + 1 == result.losses.size()) {
        line["lr_mp"] = result.lr_mp;
        line["lr_backbones"] = result.lr_backbones;
        if (result.grad_norm) line["grad_norm"] = *result.grad_norm;
      }
      log_.write(line);
    }
  }

  void validate(int64_t step, double tokens_per_second) {
    EvaluationOptions options;
    options.dtype = dtype_of(train_.dtype);
    options.blind = train_.blind;
    options.max_batches = train_.eval_batches;
    const double val_loss = evaluate_loss(model_, validation_, options).mean_of_batches;
    log_.write({{"step", step}, {"val_loss", val_loss}});
    char line[160];
    std::snprintf(line, sizeof line, "Step: %lld, Loss: %.4f, Val Loss: %.4f, Tokens/s: %.2f",
                  static_cast<long long>(step), last_loss_, val_loss, tokens_per_second);
    log_.end_line();
    say(line);
    if (std::isfinite(val_loss) && (!best_ || val_loss < *best_)) {
      best_ = val_loss;
      save_checkpoint(model_, arguments_.out + "/best");
    }
  }

  Arguments arguments_;
  TrainConfig train_;
  VLMConfig vlm_;
  std::vector<std::string> warnings_;
  Device device_;
  RunLog log_;
  VisionLanguageModel model_;
  std::unique_ptr<Source> source_;
  std::unique_ptr<Trainer> trainer_;
  EvaluationData validation_;
  std::string name_;
  bool v1_ = false;
  int64_t steps_ = 0, total_samples_ = 0;
  double last_loss_ = 0;
  std::optional<double> best_;
};

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments = parse(argc, argv);
  try {
    const RunConfig config = read_run_config(arguments.config, arguments.fields);
    Run run(arguments, config);
    run.say(describe(config));
    run.prepare();
    run.describe_run();
    run.loop();
    run.finish();
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "train: " << error.what() << std::endl;
    return 1;
  }
}
