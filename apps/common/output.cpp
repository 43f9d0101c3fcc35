#include "apps/common/output.h"

#include <unistd.h>

#include <algorithm>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/error.h"

namespace nanovlm {
namespace {

// Columns that a text takes: code points, which is right for all but combining and double-width characters.
size_t width_of(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

void Table::row(std::vector<std::string> cells, Colour colour) { rows_.push_back({std::move(cells), colour}); }

std::string Table::line(const std::vector<std::string>& cells, const std::vector<size_t>& widths) const {
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i) {
    const std::string space(widths[i] - width_of(cells[i]), ' ');
    line += (i ? "  " : "") + (columns_[i].right ? space + cells[i] : cells[i] + space);
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

void Table::print() const {
  std::vector<size_t> widths;
  std::vector<std::string> titles;
  for (const Column& column : columns_) widths.push_back(width_of(column.title)), titles.push_back(column.title);
  for (const Row& row : rows_)
    for (size_t i = 0; i < row.cells.size(); ++i) widths[i] = std::max(widths[i], width_of(row.cells[i]));
  const std::string head = line(titles, widths);
  if (!head.empty()) std::cout << paint(head, Colour::bold) << "\n";
  for (const Row& row : rows_) std::cout << paint(line(row.cells, widths), row.colour) << "\n";
}

void print_json(const nlohmann::ordered_json& value) {
  // Bytes that are no UTF-8 (in a file's name, say) are replaced: better than no answer.
  std::cout << value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << "\n";
}

std::string with_separators(int64_t n) {
  std::string digits = std::to_string(n < 0 ? -n : n);
  for (int64_t i = static_cast<int64_t>(digits.size()) - 3; i > 0; i -= 3) digits.insert(static_cast<size_t>(i), 1, ',');
  return text(n < 0 ? "-" : "", digits);
}

std::string fixed(double x, int digits) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(digits) << x;
  return out.str();
}

std::string percent(double share) { return fixed(100 * share, 1) + " %"; }

std::string in_bytes(int64_t bytes) {
  constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1000 && unit < 4) value /= 1000, ++unit;
  return fixed(value, unit == 0 || value >= 100 ? 0 : 1) + " " + kUnits[unit];
}

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void note(const std::string& program, const std::vector<std::string>& lines) {
  for (const std::string& line : lines) std::cerr << program << ": note: " << line << "\n";
}

Progress::Progress(std::string what)
    : what_(std::move(what)), terminal_(isatty(STDERR_FILENO)), started_(Clock::now()), shown_(started_) {}

Progress::~Progress() {
  if (drawn_ && terminal_) std::cerr << "\r\x1b[K" << std::flush;
}

void Progress::show(int64_t done, int64_t of) {
  const auto now = Clock::now();
  if (now - shown_ < (terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10'000))) return;
  shown_ = now;
  drawn_ = true;
  const double seconds = std::chrono::duration<double>(now - started_).count();
  const double left = done > 0 ? seconds / static_cast<double>(done) * static_cast<double>(of - done) : 0;
  std::cerr << (terminal_ ? "\r\x1b[K" : "") << what_ << ": " << done << " of " << of << ", " << fixed(seconds, 0)
            << " s, about " << fixed(left, 0) << " s left" << (terminal_ ? "" : "\n") << std::flush;
}

}  // namespace nanovlm
