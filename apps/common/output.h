// What programs print: aligned columns for people, JSON for programs, notes and progress on stderr.
#pragma once
#include <chrono>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "apps/common/colour.h"

namespace nanovlm {

// Columns as wide as their widest cell.
class Table {
 public:
  struct Column {
    std::string title;
    bool right = false;  // aligned to the right: numbers
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void row(std::vector<std::string> cells, Colour colour = Colour::none);
  void print() const;  // to standard output; titles only if there are any

 private:
  struct Row {
    std::vector<std::string> cells;
    Colour colour;
  };
  std::string line(const std::vector<std::string>& cells, const std::vector<size_t>& widths) const;

  std::vector<Column> columns_;
  std::vector<Row> rows_;
};

// One value on one line of standard output.
void print_json(const nlohmann::ordered_json& value);

std::string with_separators(int64_t n);                                        // 222,081,600
std::string fixed(double x, int digits);                                       // 3.14
std::string percent(double share);                                             // 97.1 %
std::string in_bytes(int64_t bytes);                                           // 1.2 GB
std::string quoted(const std::string& text);                                   // "a\n": as JSON writes it, on one line
void note(const std::string& program, const std::vector<std::string>& lines);  // "<program>: note: ..." on stderr

// How far a long job is, on stderr: a line that is overwritten on a terminal, a line every ten seconds elsewhere.
class Progress {
 public:
  explicit Progress(std::string what);
  ~Progress();
  void show(int64_t done, int64_t of);

 private:
  using Clock = std::chrono::steady_clock;
  std::string what_;
  bool terminal_, drawn_ = false;
  Clock::time_point started_, shown_;
};

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count(); }

 private:
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

}  // namespace nanovlm
