#include "engine/profile.h"

#include <algorithm>
#include <cstdio>
#include <vector>

namespace nanovlm {

void Profile::add(const Work& work, double seconds) {
  Entry& entry = entries_[{work.name, work.shape}];
  ++entry.calls;
  entry.seconds += seconds;
}

std::string Profile::table() const {
  std::vector<const decltype(entries_)::value_type*> rows;
  double total = 0;
  for (const auto& entry : entries_) rows.push_back(&entry), total += entry.second.seconds;
  std::sort(rows.begin(), rows.end(), [](auto* a, auto* b) { return a->second.seconds > b->second.seconds; });

  std::string out = "   calls   seconds  share  GFLOP/s  launch\n";
  for (const auto* row : rows) {
    const auto& [name, shape] = row->first;
    const auto& [calls, seconds] = row->second;
    const double flops = 2.0 * static_cast<double>(shape[0]) * static_cast<double>(shape[1]) *
                         static_cast<double>(shape[2]) * static_cast<double>(calls);
    char line[160];
    std::snprintf(line, sizeof line, "%8lld %9.3f %5.1f%%  %7.1f  %s", static_cast<long long>(calls), seconds,
                  100 * seconds / total, flops / seconds * 1e-9, name.c_str());
    out += line;
    for (size_t i = 0; shape[0] > 0 && i < shape.size(); ++i)
      out.append(i ? " x " : " ").append(std::to_string(shape[i]));
    out += '\n';
  }
  return out;
}

}  // namespace nanovlm
