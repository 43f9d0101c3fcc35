// eval: how good a model is on a data set: its loss, or how many of its answers are right.
#include <iostream>
#include <nlohmann/json.hpp>

#include "apps/common/cli.h"
#include "apps/common/dataset_argument.h"
#include "apps/common/device_option.h"
#include "apps/common/evaluate.h"
#include "apps/common/loaded_model.h"
#include "apps/common/output.h"
#include "apps/common/pretrained.h"
#include "data/multiple_choice.h"
#include "engine/file.h"

using namespace nanovlm;

namespace {

struct Settings {
  CheckpointOption model;
  std::string tokenizer, results;
  std::vector<std::string> dataset;
  std::string split = "test", task = "vqa", dtype = "f32", compat = "none";
  DeviceOption device;
  int64_t batch_size = 64, workers = 1, max_new_tokens = 0, seed = 0;
  double max_bad_share = 0.1;
  std::optional<int64_t> limit;
  bool blind = false, greedy = false, fixed_length = false, json = false;
};

void add_options(CommandLine& line, Settings& s) {
  s.model.add_to(line);
  line.option("--dataset", s.dataset,
              "files (.jsonl, .json, .parquet), folders, patterns, or org/name[:subset] on the Hub; several are put "
              "together")
      .required();
  line.option("--split", s.split, "in a folder or repository: which files");
  line.option("--task", s.task, "vqa: exact answers; mmstar: letters; loss").one_of({"loss", "vqa", "mmstar"});
  line.option("--limit", s.limit, "only the first N records").in(1, 1e15);
  line.option("--batch_size", s.batch_size, "questions at once").in(1, 65536);
  line.option("--workers", s.workers, "threads that read and decode").in(0, 256);
  line.option("--max_bad_share", s.max_bad_share,
              "of records; with more it ends with 1, after what the others gave was written")
      .in(0, 1);
  line.option("--max_new_tokens", s.max_new_tokens, "of an answer; 0: 10 for vqa, 5 for mmstar").in(0, 1 << 20);
  line.flag("--greedy", s.greedy, "mmstar: the likeliest token instead of nanoVLM's sampling (vqa always does)");
  line.flag("--fixed_length", s.fixed_length, "go on after the end token, as nanoVLM v1 does");
  line.option("--seed", s.seed, "of the random choices").in(0, 1e15);
  line.option("--compat", s.compat, "the reference's batches, its mistakes included").one_of({"none", "nanovlm-v1"});
  line.flag("--blind", s.blind, "grey instead of every picture: what the questions alone give");
  line.option("--results", s.results, "JSON Lines file to write: one line a question");
  line.option("--tokenizer", s.tokenizer,
              "tokenizer.json; else the checkpoint's own or that it names, else the one in assets/");
  line.option("--dtype", s.dtype, "of products").one_of({"f32", "bf16"});
  s.device.add_to(line);
  line.flag("--json", s.json, "one JSON object on standard output");
}

EvaluationData data_of(const Settings& s, const LoadedModel& loaded) {
  const VLMConfig& config = loaded.model.config;
  const CollateOptions collate = CollateOptions::of(s.compat, config.vit_img_size, config.lm_max_length);

  EvaluationData data;
  data.source = open_dataset_argument(s.dataset, s.split);
  data.rows = all_rows(*data.source);
  if (s.limit && *s.limit < data.source->size()) data.rows.resize(static_cast<size_t>(*s.limit));
  if (s.task == "loss")
    data.collator = std::make_shared<VqaCollator>(loaded.text, collate);
  else
    data.collator =
        std::make_shared<QuestionCollator>(loaded.text, collate, s.task == "mmstar" ? mmstar_prompt : vqa_prompt);
  data.batch_size = s.batch_size;
  data.workers = static_cast<int>(s.workers);
  data.max_bad_share = s.max_bad_share;
  return data;
}

GenerateOptions generation_of(const Settings& s) {
  GenerateOptions generation;
  generation.sampling.greedy = s.greedy || s.task == "vqa";
  generation.max_new_tokens = s.max_new_tokens > 0 ? s.max_new_tokens : s.task == "vqa" ? 10 : 5;
  generation.stop_at_eos = !s.fixed_length;
  generation.seed = static_cast<uint64_t>(s.seed);
  return generation;
}

std::string picture_of(const Record& record) {
  if (record.images.empty()) return "";
  const Picture& picture = record.images[0];
  return picture.path.empty() ? "" : picture.folder + "/" + picture.path;
}

void write_results(const std::string& path, const RecordSource& source, const AnswersResult& result) {
  NewFile file(path);
  for (const Answered& a : result.answers) {
    const nlohmann::ordered_json line = {{"image", picture_of(source.read(a.row))},
                                         {"question", a.question},
                                         {"prediction", a.prediction},
                                         {"answer", a.answer},
                                         {"correct", a.correct}};
    file.write(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  }
  file.commit();
}

nlohmann::ordered_json about(const Settings& s, const LoaderReport& loaded, double seconds) {
  return {{"task", s.task},
          {"checkpoint", s.model.name()},
          {"dataset", s.dataset},
          {"blind", s.blind},
          {"dtype", s.dtype},
          {"records", loaded.rows},
          {"left_out", loaded.rows - loaded.samples},
          {"seconds", seconds}};
}

void report_loss(const Settings& s, const LossResult& result, double seconds) {
  if (s.json) {
    nlohmann::ordered_json json = about(s, result.loaded, seconds);
    json.update({{"val_loss", result.mean_of_batches},
                 {"loss_per_token", result.mean_of_tokens},
                 {"batches", result.batches},
                 {"targets", result.targets}});
    return print_json(json);
  }
  Table table({{""}, {""}});
  table.row({"loss (mean of batches)", fixed(result.mean_of_batches, 4)}, Colour::bold);
  table.row({"loss (mean of tokens)", fixed(result.mean_of_tokens, 4)});
  table.row({"predicted tokens", with_separators(result.targets)});
  table.row({"records", result.loaded.text()});
  table.row({"time", fixed(seconds, 1) + " s"});
  table.print();
}

void report_answers(const Settings& s, const AnswersResult& result, double seconds) {
  if (s.json) {
    nlohmann::ordered_json json = about(s, result.loaded, seconds);
    json.update({{"accuracy", result.all.share()},
                 {"correct", result.all.right},
                 {"questions", result.all.asked},
                 {"commonest_answer", result.commonest_answer},
                 {"commonest_share", result.commonest.share()},
                 {"commonest_by_question_share", result.commonest_by_question.share()}});
    for (const auto& [kind, tally] : result.kinds)
      json["kinds"][kind] = {{"accuracy", tally.share()}, {"correct", tally.right}, {"questions", tally.asked}};
    return print_json(json);
  }
  Table table({{""}, {"", true}, {""}});
  const auto row = [&](const std::string& what, const Tally& t, Colour colour) {
    table.row({what, percent(t.share()), with_separators(t.right) + " of " + with_separators(t.asked)}, colour);
  };
  row(s.blind ? "right answers, pictures hidden" : "right answers", result.all, Colour::bold);
  for (const auto& [kind, tally] : result.kinds) row("  " + kind, tally, Colour::none);
  row("always " + quoted(result.commonest_answer), result.commonest, Colour::dim);
  row("each question's commonest answer", result.commonest_by_question, Colour::dim);
  table.print();
  std::cout << result.loaded.text() << ", " << fixed(seconds, 1) << " s\n";
}

void evaluate(const Settings& s) {
  if (s.task == "loss" && !s.results.empty()) throw UsageError("--results goes with --task vqa or mmstar");
  std::vector<std::string> warnings;
  const Device device = s.device.open(warnings);
  note("eval", warnings);
  const LoadedModel loaded = LoadedModel::load(s.model.folder("eval"), s.tokenizer, device, dtype_of(s.dtype));
  note("eval", loaded.warnings);
  const EvaluationData data = data_of(s, loaded);
  if (!s.results.empty()) NewFile writable(s.results);  // or an hour's work could have nowhere to go

  const Stopwatch watch;
  Progress progress("eval");
  EvaluationOptions options;
  options.dtype = dtype_of(s.dtype);
  options.blind = s.blind;
  options.progress = [&](int64_t done, int64_t of) { progress.show(done, of); };
  // Reported all the same: the answers to the records before may be an hour's work.
  const auto check_whole = [](const auto& result) { check(result.stopped.empty(), "ended early: ", result.stopped); };
  if (s.task == "loss") {
    const LossResult result = evaluate_loss(loaded.model, data, options);
    report_loss(s, result, watch.seconds());
    return check_whole(result);
  }

  const AnswerRule rule =
      s.task == "vqa" ? AnswerRule(is_exact_match) : [](const std::string& prediction, const std::string& answer) {
        return is_right_choice(prediction, answer);
      };
  const AnswersResult result =
      evaluate_answers(loaded.model, data, loaded.text.tokenizer, rule, generation_of(s), options);
  if (!s.results.empty()) write_results(s.results, *data.source, result);
  report_answers(s, result, watch.seconds());
  check_whole(result);
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CommandLine line("eval", "Measures a model on a data set.");
  add_options(line, settings);
  return line.run(argc, argv, [&] { evaluate(settings); });
}
