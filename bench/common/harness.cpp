#include "bench/common/harness.h"

#include <omp.h>
#include <sys/utsname.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <new>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "bench/common/commit.h"
#include "bench/common/device_block.h"
#include "engine/error.h"
#include "kernels/cpu.h"

namespace nanovlm::bench {
namespace {

Timing summarise(std::vector<double> samples) {
  std::vector<double> sorted = samples;
  std::sort(sorted.begin(), sorted.end());
  const auto at = [&](double q) {
    return sorted[static_cast<size_t>(q * static_cast<double>(sorted.size() - 1) + 0.5)];
  };
  return {at(0.5), at(0.1), at(0.9), sorted[0], std::move(samples)};
}

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  utsname name{};
  uname(&name);
  return name.machine;
}

}  // namespace

Timing time(const std::function<void()>& f, const TimingOptions& options) { return time_in_turns({f}, options)[0]; }

std::vector<Timing> time_in_turns(const std::vector<std::function<void()>>& fs, const TimingOptions& options) {
  std::vector<int> calls;
  for (const auto& f : fs) {
    for (int i = 0; i < options.warmup; ++i) f();
    const double once = options.clock.seconds(f, 1);
    calls.push_back(std::max(1, static_cast<int>(options.clock.shortest() / std::max(once, 1e-9))));
  }
  std::vector<std::vector<double>> samples(fs.size());
  std::vector<double> taken(fs.size());
  const auto start = std::chrono::steady_clock::now();
  const double each = static_cast<double>(fs.size());
  const auto enough = [&](double elapsed) {
    if (elapsed < options.min_seconds * each) return false;
    return std::isinf(options.max_noise) || elapsed >= options.max_seconds * each ||
           std::all_of(samples.begin(), samples.end(),
                       [&](const auto& sample) { return summarise(sample).noise() <= options.max_noise; });
  };
  for (int n = 0; n < options.max_samples; ++n) {
    const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (n >= options.min_samples && enough(elapsed)) break;
    for (size_t i = 0; i < fs.size(); ++i) {
      if (n >= TimingOptions::kFewest && taken[i] >= options.max_seconds) continue;
      samples[i].push_back(options.clock.seconds(fs[i], calls[i]));
      taken[i] += samples[i].back() * calls[i];
    }
  }
  std::vector<Timing> timings;
  for (auto& sample : samples) timings.push_back(summarise(std::move(sample)));
  return timings;
}

Report::Report(const std::string& subject) : subject_(subject), app_(std::make_unique<CLI::App>("bench/" + subject)) {
  app_->add_option("--json", json_path_, "JSON to this file, or to stdout without one")->expected(0, 1);
  app_->add_option("--csv", csv_path_, "comma-separated values to this file");
  app_->add_option("--md", md_path_, "a Markdown table to this file");
}

Report::~Report() = default;

bool Report::parse(int argc, char** argv, int& exit_code) {
  try {
    app_->parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    exit_code = app_->exit(error) == 0 ? 0 : 2;
    return false;
  }
  json_ = app_->count("--json") > 0;
  return true;
}

void Report::set_device(const Device& device) { device_ = device; }
void Report::add(Row row) { rows_.push_back(std::move(row)); }
void Report::note(const std::string& line) { notes_.push_back(line); }

std::vector<std::string> Report::columns() const {
  std::vector<std::string> columns;
  for (const Row& row : rows_)
    for (const auto& [name, value] : row)
      if (!value.only_json && std::find(columns.begin(), columns.end(), name) == columns.end()) columns.push_back(name);
  return columns;
}

namespace {

// A line a row, after one of column names: `write` makes the text of a cell, empty where a row lacks the column.
template <class F>
std::vector<std::vector<std::string>> cells(const std::vector<std::string>& columns,
                                            const std::vector<Report::Row>& rows, const F& write) {
  std::vector<std::vector<std::string>> table = {columns};
  for (const Report::Row& row : rows) {
    table.emplace_back(columns.size());
    for (const auto& [name, value] : row)
      if (!value.only_json)
        table.back()[static_cast<size_t>(std::find(columns.begin(), columns.end(), name) - columns.begin())] =
            write(value);
  }
  return table;
}

std::string quoted_if_needed(const std::string& field) {
  if (field.find_first_of(",\"\n") == std::string::npos) return field;
  std::string quoted = "\"";
  for (const char c : field) {
    if (c == '"') quoted += c;
    quoted += c;
  }
  quoted += '"';
  return quoted;
}

void write_file(const std::string& path, const std::string& content) {
  std::ofstream out(path);
  out << content;
  out.close();
  check(out.good(), path, ": can't be written");
}

}  // namespace

std::string Report::heading() const {
  return text("bench/", subject_, " on ", processor(), ", ", name_of(kernels::best_cpu_isa()), ", ",
              omp_get_max_threads(), " threads", device_ ? "; device: " + device_->name() : "");
}

std::string Report::json(int indent) const {
  nlohmann::ordered_json document = {{"bench", subject_},
                                     {"processor", processor()},
                                     {"cpu_backend", name_of(kernels::best_cpu_isa())},
                                     {"threads", omp_get_max_threads()}};
  if (!commit().empty()) document["git"] = commit();
  if (device_) document["device"] = device_block(*device_);
  if (!ceilings_.empty()) document["ceilings"] = ceilings_;
  document["rows"] = nlohmann::ordered_json::array();
  for (const Row& row : rows_) {
    nlohmann::ordered_json object;
    for (const auto& [name, value] : row) object[name] = nlohmann::ordered_json::parse(value.json);
    document["rows"].push_back(object);
  }
  document["notes"] = notes_;
  return document.dump(indent) + '\n';
}

// Numbers with all their digits, as in the JSON.
std::string Report::csv() const {
  std::string out;
  for (const auto& line : cells(columns(), rows_, [](const Value& value) {
         return value.json == "null" ? "" : value.json[0] == '"' ? value.text : value.json;
       })) {
    for (size_t c = 0; c < line.size(); ++c) out += text(c ? "," : "", quoted_if_needed(line[c]));
    out += '\n';
  }
  return out;
}

std::string Report::markdown() const {
  const auto table = cells(columns(), rows_, [](const Value& value) { return value.text; });
  std::string out = heading() + "\n\n";
  for (size_t row = 0; row < table.size(); ++row) {
    for (const std::string& cell : table[row]) out += text("| ", cell, ' ');
    out += "|\n";
    if (row > 0) continue;
    for (size_t c = 0; c < table[row].size(); ++c) out += c ? "|--:" : "|---";
    out += "|\n";
  }
  for (const std::string& line : notes_) out += text("\n- ", line);
  if (!notes_.empty()) out += '\n';
  return out;
}

void Report::print() const {
  const auto table = cells(columns(), rows_, [](const Value& value) { return value.text; });
  std::printf("%s\n", heading().c_str());
  for (const auto& row : table) {
    for (size_t c = 0; c < row.size(); ++c) {
      size_t width = 0;
      for (const auto& other : table) width = std::max(width, other[c].size());
      std::printf(c == 0 ? "%-*s" : "  %*s", static_cast<int>(width), row[c].c_str());
    }
    std::printf("\n");
  }
  for (const std::string& line : notes_) std::printf("%s\n", line.c_str());
}

int Report::finish() {
  if (!csv_path_.empty()) write_file(csv_path_, csv());
  if (!md_path_.empty()) write_file(md_path_, markdown());
  const bool to_stdout = json_ && (json_path_.empty() || json_path_ == "true");
  if (json_ && !to_stdout) write_file(json_path_, json(1));
  if (to_stdout)
    std::cout << json(-1) << std::flush;
  else
    print();
  return 0;
}

void append(Report::Row& row, const Report::Row& more) { row.insert(row.end(), more.begin(), more.end()); }

Report::Value value(const std::string& text) { return {text, nlohmann::json(text).dump()}; }
Report::Value value(int64_t number) { return {std::to_string(number), std::to_string(number)}; }
Report::Value value(double number, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, number);
  return {std::isfinite(number) ? text : "-", nlohmann::json(number).dump()};
}
Report::Value value(const std::vector<double>& numbers) { return {"", nlohmann::json(numbers).dump(), true}; }
Report::Value milliseconds(double seconds) { return value(seconds * 1e3, seconds < 1e-2 ? 3 : 1); }

int failed(const std::string& subject, int argc, char** argv) {
  std::string asked;
  for (int i = 1; i < argc; ++i) asked += text(' ', argv[i]);
  const std::string too_large =
      "the host's memory does not hold what was asked for:" + (asked.empty() ? " the defaults" : asked);
  std::string what;
  try {
    throw;
  } catch (const std::bad_alloc&) {
    what = too_large;
  } catch (const std::length_error&) {  // a vector's size beyond any memory
    what = too_large;
  } catch (const std::exception& error) {
    what = error.what();
  }
  std::cerr << "bench/" << subject << ": " << what << std::endl;
  return 1;
}

void require(bool ok, const std::string& what) { check(ok, "wrong result, no time: ", what); }

}  // namespace nanovlm::bench
