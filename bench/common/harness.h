// One harness for every bench: the result is checked first, then timed; median and spread; one row a case, as a table,
// JSON, CSV or Markdown. On a shared machine only ratios taken in one run mean anything, so a bench times its baseline
// beside itself.
#pragma once
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "bench/common/clock.h"

namespace CLI {
class App;
}

namespace nanovlm::bench {

struct Timing {
  double median = 0, p10 = 0, p90 = 0, least = 0;  // seconds of one call
  std::vector<double> samples;                     // in the order in which they were taken
  double noise() const { return median > 0 ? (p90 - p10) / median : 0; }
};

struct TimingOptions {
  double min_seconds = 0.5;  // of measuring, after the warm-up
  int min_samples = 5, max_samples = 1000;
  double max_noise = std::numeric_limits<double>::infinity();  // while a noise() is larger, it goes on to max_seconds
  // An implementation that has taken so long has enough with kFewest samples: a plain one beside a fast one.
  double max_seconds = std::numeric_limits<double>::infinity();
  static constexpr int kFewest = 3;
  int warmup = 1;
  Clock clock = {};
};

// Calls f until both minima are reached. Calls shorter than the clock wants are timed in groups.
Timing time(const std::function<void()>& f, const TimingOptions& options = {});

// Times several implementations in turns, so that whatever else the machine does falls on all of them.
std::vector<Timing> time_in_turns(const std::vector<std::function<void()>>& fs, const TimingOptions& options = {});

// A table that grows by rows: columns in the order they first appear.
class Report {
 public:
  // Takes --json [FILE], --csv FILE, --md FILE and --help; a subject adds its own options to `app` before parse().
  explicit Report(const std::string& subject);
  ~Report();
  CLI::App& app() { return *app_; }
  // Returns false where the process should end with `exit_code`.
  bool parse(int argc, char** argv, int& exit_code);

  struct Value {
    std::string text;        // in the table
    std::string json;        // the value's JSON
    bool only_json = false;  // in no table
  };
  using Row = std::vector<std::pair<std::string, Value>>;
  void add(Row row);
  const std::vector<Row>& rows() const { return rows_; }
  void set_device(const Device& device);  // where it is not the processor
  // Ceilings that were measured, in the JSON's "ceilings".
  void set_ceiling(const std::string& name, double rate) { ceilings_[name] = rate; }
  void note(const std::string& line);  // printed under the table, and in the JSON's notes
  int finish();                        // prints; returns the exit code

 private:
  std::vector<std::string> columns() const;
  std::string json(int indent) const;
  std::string csv() const;
  std::string markdown() const;
  std::string heading() const;  // "bench/norm on ..."
  void print() const;

  std::string subject_, json_path_, csv_path_, md_path_;
  std::optional<Device> device_;
  std::map<std::string, double> ceilings_;
  bool json_ = false;
  std::unique_ptr<CLI::App> app_;
  std::vector<Row> rows_;
  std::vector<std::string> notes_;
};

void append(Report::Row& row, const Report::Row& more);
Report::Value value(const std::string& text);
Report::Value value(double number, int digits);  // fixed digits in the table, all of them in the JSON
Report::Value value(int64_t number);
Report::Value value(const std::vector<double>& numbers);  // for the JSON only
Report::Value milliseconds(double seconds);

// The exit code of a bench that ends with the exception being handled, which it tells in a line; where memory was too
// small, with what was asked for.
int failed(const std::string& subject, int argc, char** argv);

// Ends the bench with a message where a result is wrong: a wrong kernel gets no time.
void require(bool ok, const std::string& what);

}  // namespace nanovlm::bench
