#include "bench/common/compare.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/error.h"
#include "engine/json.h"

namespace nanovlm::bench {
namespace {

constexpr const char* kFirstFigures[] = {"us_p50", "blocks", "l2_mb", "rel_err"};
constexpr const char* kJudged[] = {"us_p50", "mb", "l2_mb", "sectors", "wavefronts", "registers", "spill_b"};

template <size_t N>
bool among(const char* const (&names)[N], const std::string& name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

Report::Row label_of(const Report::Row& row) {
  return {row.begin(),
          std::find_if(row.begin(), row.end(), [](const auto& cell) { return among(kFirstFigures, cell.first); })};
}

std::string joined(const std::string& words, const std::string& name, const nlohmann::json& cell) {
  const std::string word = cell.is_string() ? cell.get<std::string>() : text(name, ' ', cell.dump());
  return words + (words.empty() ? "" : " ") + word;
}

std::string text_of(const Report::Row& label) {
  std::string result;
  for (const auto& [name, cell] : label) result = joined(result, name, nlohmann::json::parse(cell.json));
  return result;
}

// Of a row of the file, by the columns that this run's labels have, in their order.
std::string text_of(const nlohmann::json& old, const std::vector<Report::Row>& labels) {
  std::string result;
  std::set<std::string> seen;
  for (const Report::Row& label : labels)
    for (const auto& [name, cell] : label)
      if (old.contains(name) && seen.insert(name).second) result = joined(result, name, old[name]);
  return result;
}

bool matches(const nlohmann::json& old, const Report::Row& label) {
  return std::all_of(label.begin(), label.end(), [&](const auto& cell) {
    return old.contains(cell.first) && old[cell.first] == nlohmann::json::parse(cell.second.json);
  });
}

}  // namespace

std::vector<std::string> regressions(const std::string& file, const std::vector<Report::Row>& rows, double percent) {
  const nlohmann::json document = read_json_file(file);
  const JsonValue old_rows = JsonValue(document, file)["rows"];
  std::vector<Report::Row> labels;
  for (const Report::Row& row : rows) labels.push_back(label_of(row));
  std::vector<std::string> lines, gone;
  for (int64_t i = 0; i < old_rows.array_size(); ++i) {
    const nlohmann::json& old = old_rows.at(i).json();
    bool found = false;
    for (size_t r = 0; r < rows.size(); ++r) {
      if (!matches(old, labels[r])) continue;
      found = true;
      for (const auto& [name, cell] : rows[r]) {
        if (!among(kJudged, name) || !old.contains(name)) continue;
        const double before = old_rows.at(i)[name].number(), now = nlohmann::json::parse(cell.json).get<double>();
        if (now > before * (1 + percent / 100))
          lines.push_back(text("grown: ", text_of(labels[r]), ": ", name, " was ", before, ", is ", now));
      }
    }
    if (!found) gone.push_back(text("gone: ", text_of(old, labels), ": in ", file, ", not in this run"));
  }
  check(static_cast<int64_t>(gone.size()) < old_rows.array_size(), file, ": has no row in common with this run");
  lines.insert(lines.end(), gone.begin(), gone.end());
  return lines;
}

}  // namespace nanovlm::bench
