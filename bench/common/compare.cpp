#include "bench/common/compare.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/json.h"

namespace nanovlm::bench {
namespace {

constexpr const char* kFirstFigures[] = {"us_p50", "blocks", "l2_mb"};
constexpr const char* kJudged[] = {"us_p50", "mb", "l2_mb", "sectors", "wavefronts", "registers", "spill_b"};

template <size_t N>
bool among(const char* const (&names)[N], const std::string& name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

Report::Row label_of(const Report::Row& row) {
  return {row.begin(),
          std::find_if(row.begin(), row.end(), [](const auto& cell) { return among(kFirstFigures, cell.first); })};
}

std::string text_of(const Report::Row& label) {
  std::string result;
  for (const auto& [name, cell] : label)
    result += (result.empty() ? "" : " ") + (cell.json[0] == '"' ? cell.text : text(name, ' ', cell.text));
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
  std::vector<std::string> lines;
  int common = 0;
  for (const Report::Row& row : rows) {
    const Report::Row label = label_of(row);
    for (int64_t i = 0; i < old_rows.array_size(); ++i) {
      const nlohmann::json& old = old_rows.at(i).json();
      if (!matches(old, label)) continue;
      ++common;
      for (const auto& [name, cell] : row) {
        if (!among(kJudged, name) || !old.contains(name)) continue;
        const double before = old_rows.at(i)[name].number(), now = nlohmann::json::parse(cell.json).get<double>();
        if (now > before * (1 + percent / 100))
          lines.push_back(text(text_of(label), ": ", name, " was ", before, ", is ", now));
      }
    }
  }
  check(common > 0, file, ": has no row in common with this run");
  return lines;
}

}  // namespace nanovlm::bench
