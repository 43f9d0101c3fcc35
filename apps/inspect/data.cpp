// inspect data: what the loss would see of a data set, before a run: how many records can be used, how long their texts
// are, what the limit cuts, how many labels count, and a few samples to look at.
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/common/dataset_argument.h"
#include "apps/common/loaded_model.h"
#include "apps/common/output.h"
#include "apps/inspect/sections.h"
#include "data/sample_sheet.h"
#include "data/survey.h"
#include "engine/random.h"

namespace nanovlm::inspect {
namespace {

constexpr double kShares[] = {0.5, 0.9, 0.99, 1};

struct Settings {
  std::vector<std::string> dataset;
  std::string split = "train", tokenizer, config, compat = "none", sheet;
  std::optional<int64_t> max_length, image_size, records;
  int64_t workers = 2, sheet_count = 24, seed = 0;
  bool text_only = false, json = false;
};

CollateOptions options_of(const Settings& s, const VLMConfig& config) {
  const int64_t size = s.image_size.value_or(config.vit_img_size), length = s.max_length.value_or(config.lm_max_length);
  return CollateOptions::of(s.compat, size, length);
}

std::string share(int64_t part, int64_t whole) {
  return percent(whole ? static_cast<double>(part) / static_cast<double>(whole) : 0);
}

int64_t broken(const SurveyCounts& counts) { return counts.records - counts.samples; }

nlohmann::ordered_json to_json(const SurveyCounts& counts) {
  nlohmann::ordered_json json = {
      {"records", counts.records},   {"samples", counts.samples},       {"turns", counts.turns},
      {"pictures", counts.pictures}, {"duplicates", counts.duplicates}, {"over_long", counts.over_long},
      {"tokens", counts.tokens},     {"labels", counts.labels},         {"without_loss", counts.without_loss}};
  for (const double share : kShares) json["length_percentiles"][text(share * 100)] = counts.length_at(share);
  json["broken"] = nlohmann::ordered_json::object();
  for (int f = 0; f < kFaults; ++f)
    if (const int64_t n = counts.broken[static_cast<size_t>(f)]) json["broken"][name_of(static_cast<Fault>(f))] = n;
  return json;
}

void print_text(const Survey& survey, int64_t max_length) {
  Table table({{"source"},
               {"records", true},
               {"broken", true},
               {"duplicates", true},
               {"turns", true},
               {"50 %", true},
               {"90 %", true},
               {"99 %", true},
               {"longest", true},
               {"over-long", true},
               {"labels", true},
               {"no loss", true}});
  const auto row = [&](const std::string& name, const SurveyCounts& c, Colour colour) {
    std::vector<std::string> cells = {name, with_separators(c.records), with_separators(broken(c)),
                                      with_separators(c.duplicates), with_separators(c.turns)};
    for (const double share : kShares) cells.push_back(with_separators(c.length_at(share)));
    cells.insert(cells.end(),
                 {share(c.over_long, c.samples), share(c.labels, c.tokens), share(c.without_loss, c.samples)});
    table.row(std::move(cells), colour);
  };
  for (const auto& [name, counts] : survey.sources) row(name, counts, Colour::none);
  row("all", survey.all, Colour::bold);
  table.print();
  std::cout << "\nLengths are tokens of question and answer; over-long: more than " << max_length
            << "; labels: the share of tokens that are learnt; no loss: samples without one.\n";
  for (int f = 0; f < kFaults; ++f)
    if (const int64_t n = survey.all.broken[static_cast<size_t>(f)])
      std::cout << paint(text("broken: ", n, " ", name_of(static_cast<Fault>(f))), Colour::red) << "\n";
  for (const Skip& skip : survey.skipped) std::cout << "  " << one_line(skip.message) << "\n";
}

// Random samples as the model sees them, in one picture.
void write_sheet(const Settings& s, const Dataset& dataset, const std::vector<int64_t>& rows,
                 const PromptTokenizer& text, const CollateOptions& options) {
  CollateOptions cutting = options;
  if (cutting.over_long == OverLong::drop) cutting.over_long = OverLong::mask;  // to be shown as cut
  const VqaCollator collator(text, cutting), whole(text, options.uncut());
  SampleSheet sheet;
  for (const int64_t i : permutation(static_cast<int64_t>(rows.size()), static_cast<uint64_t>(s.seed))) {
    if (sheet.size() == s.sheet_count) break;
    const int64_t row = rows[static_cast<size_t>(i)];
    try {
      const Record record = dataset.read(row);
      const Sample sample = collator.prepare(record, dataset.place(row));
      sheet.add(sample, whole.prepare_text(record, sample.place), record.texts[0].source, text.tokenizer);
    } catch (const BadRecord&) {
      continue;  // counted by the survey
    }
  }
  check(sheet.size() > 0, "--sheet: expected a sample to draw, found none among ", rows.size(), " records");
  std::string title;
  for (const std::string& name : s.dataset) title += (title.empty() ? "" : ", ") + name;
  write_png(s.sheet, sheet.draw(title));
  std::cerr << "inspect: " << sheet.size() << " samples in " << s.sheet << "\n";
}

void inspect_data(const Settings& s) {
  if (!s.sheet.empty() && !s.sheet.ends_with(".png"))
    throw UsageError("--sheet " + s.sheet + ": expected a name that ends in .png");
  std::vector<std::string> warnings;
  const VLMConfig config = s.config.empty() ? VLMConfig() : load_config(s.config, warnings);
  const PromptTokenizer text = load_tokenizer(s.tokenizer, s.config, config, warnings);
  note("inspect", warnings);
  const auto dataset = open_dataset_argument(s.dataset, s.split);
  std::vector<int64_t> rows = all_rows(*dataset);
  if (s.records && *s.records < dataset->size()) {
    const std::vector<int64_t> order = permutation(dataset->size(), static_cast<uint64_t>(s.seed));
    rows.assign(order.begin(), order.begin() + *s.records);
  }

  SurveyOptions options;
  options.collate = options_of(s, config);
  options.decode_pictures = !s.text_only;
  options.workers = static_cast<int>(s.workers);
  if (!s.sheet.empty()) write_sheet(s, *dataset, rows, text, options.collate);  // what can fail, before what takes long
  Survey result;
  {
    Progress progress("looking at records");
    options.progress = [&](int64_t done, int64_t of) { progress.show(done, of); };
    result = survey(*dataset, rows, text, options);
  }
  if (!s.json) return print_text(result, options.collate.max_length);
  nlohmann::ordered_json json = {{"max_length", options.collate.max_length}, {"all", to_json(result.all)}};
  json["sources"] = nlohmann::ordered_json::object();
  for (const auto& [name, counts] : result.sources) json["sources"][name] = to_json(counts);
  json["first_broken"] = nlohmann::ordered_json::array();
  for (const Skip& skip : result.skipped)
    json["first_broken"].push_back({{"reason", name_of(skip.fault)}, {"message", skip.message}});
  print_json(json);
}

}  // namespace

void add_data(CommandLine& line) {
  const auto s = std::make_shared<Settings>();
  CommandLine section = line.section("data", "what the loss would see of a data set", [s] { inspect_data(*s); });
  section.option("DATASET", s->dataset, "files, folders, patterns, FOLDER:SUBSET").required();
  section.option("--split", s->split, "in a folder: which files");
  section.option("--tokenizer", s->tokenizer,
                 "tokenizer.json; else the one beside --config or that it names, else the one in assets/");
  section.option("--config", s->config, "config.json or checkpoint: picture size and longest text");
  section.option("--image_size", s->image_size, "in place of the configuration's").in(1, 8192);
  section.option("--max_length", s->max_length, "in place of the configuration's").in(1, 1 << 24);
  section.option("--compat", s->compat, "the reference's samples, its mistakes included")
      .one_of({"none", "nanovlm-v1"});
  section.option("--records", s->records, "look at so many random ones only").in(1, 1e15);
  section.flag("--text_only", s->text_only, "leave the pictures undecoded: quicker, but broken ones go unseen");
  section.option("--workers", s->workers, "threads").in(0, 256);
  section.option("--sheet", s->sheet,
                 "FILE.png: random samples as the model sees them, learnt tokens green, cut ones red");
  section.option("--sheet_count", s->sheet_count, "of them").in(1, 200);
  section.option("--seed", s->seed, "of what is random").in(0, 1e15);
  section.flag("--json", s->json, "one JSON object on standard output");
}

}  // namespace nanovlm::inspect
