// inspect batch: a data set's records as the model is given them: which tokens are context, which are to be predicted,
// how much is padding, and what was cut or left out.
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/common/dataset_argument.h"
#include "apps/common/loaded_model.h"
#include "apps/common/output.h"
#include "apps/inspect/sections.h"
#include "data/loader.h"
#include "engine/safetensors.h"

namespace nanovlm::inspect {
namespace {

struct Settings {
  std::vector<std::string> dataset;
  std::string split = "train", tokenizer, config, compat = "none", task = "train", out;
  int64_t batch_size = 4, first = 0;
  std::optional<int64_t> max_length, image_size;
  bool json = false;
};

enum class Role { context, target, padding };

struct Row {
  std::vector<int32_t> ids, mask, labels;  // labels empty where the batch has none

  // A token is a target if the place before it is labelled with it.
  Role role(size_t t) const {
    if (!mask[t]) return Role::padding;
    return t > 0 && !labels.empty() && labels[t - 1] != kIgnoredLabel ? Role::target : Role::context;
  }
};

Row row_of(const Batch& batch, int64_t b) {
  const auto row = [&](const Tensor& x) { return x.slice(0, b, b + 1); };
  std::vector<uint8_t> mask(static_cast<size_t>(batch.input_ids.size(1)));
  copy_to_host(row(batch.attention_mask), mask.data(), static_cast<int64_t>(mask.size()));
  Row result = {to_host_i32(row(batch.input_ids)), {mask.begin(), mask.end()}, {}};
  if (batch.labels.defined()) result.labels = to_host_i32(row(batch.labels));
  return result;
}

std::shared_ptr<const Collator> collator_of(const Settings& s, const VLMConfig& config, const PromptTokenizer& text) {
  const int64_t size = s.image_size.value_or(config.vit_img_size), length = s.max_length.value_or(config.lm_max_length);
  const CollateOptions options = CollateOptions::of(s.compat, size, length);
  if (s.task == "train") return std::make_shared<VqaCollator>(text, options);
  return std::make_shared<QuestionCollator>(text, options, s.task == "mmstar" ? mmstar_prompt : vqa_prompt);
}

// The tokens with bars between them: context plain, targets green in [ ], padding counted.
std::string coloured(const Row& row, const Tokenizer& tokenizer) {
  constexpr const char* kBar = "\u2502";
  std::string line;
  for (size_t begin = 0, end; begin < row.ids.size(); begin = end) {
    const Role role = row.role(begin);
    for (end = begin; end < row.ids.size() && row.role(end) == role;) ++end;
    if (!line.empty()) line += " ";
    if (role == Role::padding) {
      line += paint(text("<padding x ", end - begin, ">"), Colour::dim);
      continue;
    }
    if (role == Role::target) line += paint("[", Colour::green);
    for (size_t t = begin; t < end; ++t) {
      const std::string token = quoted(tokenizer.decode(std::span(&row.ids[t], 1)));
      line += t > begin ? paint(kBar, Colour::dim) : "";
      line += paint(token.substr(1, token.size() - 2), role == Role::target ? Colour::green : Colour::none);
    }
    if (role == Role::target) line += paint("]", Colour::green);
  }
  return line;
}

int64_t count(const Row& row, Role role) {
  int64_t n = 0;
  for (size_t t = 0; t < row.ids.size(); ++t) n += row.role(t) == role;
  return n;
}

void print_text(const LoadedBatch& loaded, const std::vector<Skip>& skipped, const LoaderReport& report,
                const Tokenizer& tokenizer) {
  int64_t tokens = 0, targets = 0, padding = 0;
  for (int64_t b = 0; b < loaded.batch.size(); ++b) {
    const Sample& sample = loaded.samples[static_cast<size_t>(b)];
    const Row row = row_of(loaded.batch, b);
    const int64_t own_targets = count(row, Role::target), own_padding = count(row, Role::padding);
    std::cout << paint(sample.place, Colour::bold) << paint(text("  ", sample.ids.size(), " tokens"), Colour::dim)
              << (sample.cut ? paint("  cut to this length", Colour::red) : "") << "\n  " << coloured(row, tokenizer)
              << "\n";
    tokens += static_cast<int64_t>(row.ids.size()), targets += own_targets, padding += own_padding;
  }
  std::cout << "\n";
  for (const Skip& skip : skipped)
    std::cout << paint(text("left out (", name_of(skip.fault), ")"), Colour::red) << "  " << one_line(skip.message)
              << "\n";
  Table table({{""}, {""}});
  table.row({"pictures", text(loaded.batch.images.shape())});
  table.row({"tokens", text(text(loaded.batch.input_ids.shape()), ": ", tokens - targets - padding, " context, ",
                            targets, " predicted, ", padding, " padding")});
  table.row({"records", report.text()});
  table.print();
}

nlohmann::ordered_json to_json(const LoadedBatch& loaded, const std::vector<Skip>& skipped,
                               const LoaderReport& report) {
  nlohmann::ordered_json json = {{"images", loaded.batch.images.shape()}, {"tokens", loaded.batch.input_ids.shape()}};
  json["samples"] = nlohmann::ordered_json::array();
  for (int64_t b = 0; b < loaded.batch.size(); ++b) {
    const Sample& sample = loaded.samples[static_cast<size_t>(b)];
    const Row row = row_of(loaded.batch, b);
    nlohmann::ordered_json one = {{"place", sample.place},
                                  {"question", sample.question},
                                  {"answer", sample.answer},
                                  {"cut", sample.cut},
                                  {"input_ids", row.ids},
                                  {"attention_mask", row.mask},
                                  {"targets", count(row, Role::target)}};
    if (loaded.batch.labels.defined()) one["labels"] = row.labels;
    if (!sample.answer_ids.empty()) one["answer_ids"] = sample.answer_ids;
    json["samples"].push_back(one);
  }
  json["left_out"] = nlohmann::ordered_json::array();
  for (const Skip& skip : skipped)
    json["left_out"].push_back({{"reason", name_of(skip.fault)}, {"message", skip.message}});
  json["report"] = report.text();
  return json;
}

void write(const std::string& path, const Batch& batch) {
  std::vector<std::pair<std::string, Tensor>> tensors = {
      {"images", unit_range(batch.images)}, {"input_ids", batch.input_ids}, {"attention_mask", batch.attention_mask}};
  if (batch.labels.defined()) tensors.emplace_back("labels", batch.labels);
  write_safetensors(path, tensors);
}

void inspect_batch(const Settings& s) {
  std::vector<std::string> warnings;
  const VLMConfig config = s.config.empty() ? VLMConfig() : load_config(s.config, warnings);
  const PromptTokenizer text = load_tokenizer(s.tokenizer, s.config, config, warnings);
  note("inspect", warnings);
  const auto collator = collator_of(s, config, text);
  const auto source = open_dataset_argument(s.dataset, s.split);
  std::vector<int64_t> rows = all_rows(*source);
  check(s.first < source->size(), "--first ", s.first, ": expected a record of the ", source->size(),
        " in the data set");
  rows.erase(rows.begin(), rows.begin() + s.first);

  LoaderOptions options;
  options.batch_size = s.batch_size;
  options.shuffle = options.drop_last = options.skip_without_target = false;
  options.workers = 0;
  Loader loader(source, std::move(rows), collator, options);
  const std::optional<LoadedBatch> loaded = loader.next();
  const std::vector<Skip> skipped = loader.take_skipped();
  check(loaded.has_value(), "batch: expected a record that can be used, found none: ", loader.report().text());

  if (!s.out.empty()) write(s.out, loaded->batch);
  if (s.json)
    print_json(to_json(*loaded, skipped, loader.report()));
  else
    print_text(*loaded, skipped, loader.report(), text.tokenizer);
}

}  // namespace

void add_batch(CommandLine& line) {
  const auto s = std::make_shared<Settings>();
  CommandLine section = line.section("batch", "records as the model is given them", [s] { inspect_batch(*s); });
  section.option("--dataset", s->dataset, "files, folders, patterns, FOLDER:SUBSET; several are put together")
      .required();
  section.option("--split", s->split, "in a folder: which files");
  section.option("--tokenizer", s->tokenizer,
                 "tokenizer.json; else the one beside --config or that it names, else the one in assets/");
  section.option("--config", s->config, "config.json or checkpoint: picture size and longest text");
  section.option("--image_size", s->image_size, "in place of the configuration's").in(1, 8192);
  section.option("--max_length", s->max_length, "in place of the configuration's").in(1, 1 << 24);
  section.option("--task", s->task, "train: with answers; vqa, mmstar: questions").one_of({"train", "vqa", "mmstar"});
  section.option("--compat", s->compat, "the reference's batches, its mistakes included")
      .one_of({"none", "nanovlm-v1"});
  section.option("--first", s->first, "the record to begin with").in(0, 1e15);
  section.option("--batch_size", s->batch_size, "records").in(1, 65536);
  section.option("--out", s->out, "write the batch: safetensors with images, input_ids, attention_mask, labels");
  section.flag("--json", s->json, "one JSON object on standard output");
}

}  // namespace nanovlm::inspect
