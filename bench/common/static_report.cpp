#include "bench/common/static_report.h"

#include <algorithm>
#include <cstdio>
#include <set>

#include "engine/error.h"
#include "kernels/simt/executor.h"
#include "kernels/simt/site.h"

namespace nanovlm::bench {
namespace {

using simt::KernelReport;

double ratio(int64_t found, int64_t ideal) {
  return ideal > 0 ? static_cast<double>(found) / static_cast<double>(ideal) : 1;
}

// One launch of the full-size problem on each GPU, in microseconds, and what binds it.
struct GpuBounds {
  double h100 = 0, h200 = 0;
  std::string by;

  GpuBounds(const KernelReport& report, double full) {
    const double scale = full * static_cast<double>(report.launches) * 1e6;
    const auto largest = [](const simt::Bounds& b) { return std::max({b.dram, b.l2, b.shared, b.tensor}); };
    const simt::Bounds b = simt::bounds(report, simt::kH100);
    h100 = largest(b) * scale, by = b.largest;
    h200 = largest(simt::bounds(report, simt::kH200)) * scale;
  }
};

Report::Row labels(const Case& c, const std::string& kernel) {
  Report::Row row = {{"kernel", value(kernel)}, {"dir", value(c.dir)}, {"dtype", value(std::string(name_of(c.dtype)))}};
  for (const auto& [name, size] : c.shape) row.push_back({name, value(size)});
  return row;
}

Report::Row kernel_row(const Case& c, const KernelReport& report, const CompiledKernels& compiled) {
  Report::Row row = labels(c, report.kernel);
  append(row, {{"blocks", value(report.blocks / std::max<int64_t>(report.launches, 1))},
               {"threads", value(static_cast<int64_t>(report.threads))},
               {"smem_kb", value(static_cast<double>(report.static_shared + report.dynamic_shared) / 1024, 1)}});
  if (const auto found = compiled.find(simt::function_at(report.function))) {
    const int blocks = simt::blocks_at_once(report, *found);
    append(row, {{"registers", value(static_cast<int64_t>(found->registers))},
                 {"spill_b", value(static_cast<int64_t>(found->spill_bytes))},
                 {"blocks_sm", value(static_cast<int64_t>(blocks))},
                 {"occupancy_pct", value(100.0 * blocks * report.threads / 2048, 0)}});
  }
  if (!report.instrumented) return row;
  const GpuBounds bound(report, c.full);
  append(row, {{"sectors", value(ratio(report.sectors, report.ideal_sectors), 2)},
               {"wavefronts", value(ratio(report.wavefronts, report.ideal_wavefronts), 2)},
               {"lanes", value(ratio(report.lanes, report.requests), 1)},
               {"mma_mflop", value(static_cast<double>(report.mma_flops) * 1e-6, 1)},
               {"l2_mb", value(static_cast<double>(report.sectors) * 32e-6, 3)},
               {"mb", value(static_cast<double>(report.dram_bytes) * 1e-6, 3)},
               {"h100_us", value(bound.h100, 1)},
               {"h200_us", value(bound.h200, 1)},
               {"bound_by", value(bound.by)}});
  return row;
}

double total_bytes(const std::vector<KernelReport>& reports) {
  double bytes = 0;
  for (const KernelReport& report : reports) bytes += static_cast<double>(report.dram_bytes);
  return bytes;
}

double floor_us(const Case& c, const simt::Gpu& gpu) {
  const double rate = c.dtype == DType::bf16 ? gpu.tensor_flops : gpu.fma_flops;
  return c.full * 1e6 * std::max(c.bytes / gpu.dram_bytes, c.flops / rate);
}

Report::Row operation_row(const Case& c, const std::vector<KernelReport>& reports) {
  double h100 = 0, h200 = 0;
  int64_t sectors = 0;
  for (const KernelReport& report : reports) {
    const GpuBounds bound(report, c.full);
    h100 += bound.h100, h200 += bound.h200, sectors += report.sectors;
  }
  Report::Row row = labels(c, "= " + c.operation);
  append(row, {{"l2_mb", value(static_cast<double>(sectors) * 32e-6, 3)},
               {"mb", value(total_bytes(reports) * 1e-6, 3)},
               {"h100_us", value(h100, 1)},
               {"h200_us", value(h200, 1)}});
  if (c.bytes > 0)
    append(row, {{"least_mb", value(c.bytes * 1e-6, 3)},
                 {"x_least", value(total_bytes(reports) / c.bytes, 2)},
                 {"h100_floor_us", value(floor_us(c, simt::kH100), 1)},
                 {"h200_floor_us", value(floor_us(c, simt::kH200), 1)}});
  return row;
}

std::string figure_text(const std::string& kernel, const std::string& figure, double found, double limit) {
  char text[256];
  std::snprintf(text, sizeof text, "%s: %s %.2fx the least, limit %.2fx", kernel.c_str(), figure.c_str(), found, limit);
  return text;
}

// The line of worst shared-memory accesses among those that matter: an average hides it behind lines that have many.
const simt::LineReport* worst_line(const KernelReport& report) {
  constexpr double kMatters = 0.02;  // of the kernel's wavefronts
  const simt::LineReport* worst = nullptr;
  for (const simt::LineReport& line : report.lines) {
    if (static_cast<double>(line.wavefronts) <= kMatters * static_cast<double>(report.wavefronts)) continue;
    if (!worst || ratio(line.wavefronts, line.ideal_wavefronts) > ratio(worst->wavefronts, worst->ideal_wavefronts))
      worst = &line;
  }
  return worst;
}

// Collects what is beyond a limit.
class Judge {
 public:
  explicit Judge(const Case& c) : case_(c) {}

  void judge(const std::string& kernel, const std::string& figure, double found, double limit,
             const std::string& place = {}) {
    const auto known = std::find_if(case_.excesses.begin(), case_.excesses.end(), [&](const KnownExcess& excess) {
      return excess.kernel == kernel && excess.figure == figure;
    });
    if (known != case_.excesses.end()) seen_.insert(&*known);
    if (known == case_.excesses.end()) {
      if (found > limit)
        lines_.push_back(figure_text(place.empty() ? kernel : kernel + ' ' + place, figure, found, limit));
    } else if (found > known->at_most) {
      lines_.push_back(figure_text(kernel, figure, found, known->at_most) + ", already raised: " + known->reason);
    } else if (found <= limit) {
      lines_.push_back(figure_text(kernel, figure, found, limit) + ": no longer an excess, yet listed as one");
    }
  }
  std::vector<std::string> take() {
    for (const KnownExcess& excess : case_.excesses)
      if (!seen_.contains(&excess))
        lines_.push_back(excess.kernel + ": " + excess.figure +
                         " is listed as an excess, but nothing of that name has run");
    return std::move(lines_);
  }

 private:
  const Case& case_;
  std::set<const KnownExcess*> seen_;
  std::vector<std::string> lines_;
};

simt::Executor& executor_of(const Device& device) {
  check(device.kind() == DeviceKind::simt, "counting accesses: expected the simt device, found ", device.name());
  return *device.context().executor;
}

}  // namespace

void forget_counts(const Device& device) { executor_of(device).clear_reports(); }
std::vector<KernelReport> counts(const Device& device) { return executor_of(device).reports(); }

std::vector<Report::Row> static_rows(const Case& c, const std::vector<KernelReport>& reports,
                                     const CompiledKernels& compiled) {
  std::vector<Report::Row> rows;
  bool counted = true;
  for (const KernelReport& report : reports) {
    rows.push_back(kernel_row(c, report, compiled));
    counted &= report.instrumented;
  }
  if (counted) rows.push_back(operation_row(c, reports));
  return rows;
}

std::vector<std::string> beyond_limits(const Case& c, const std::vector<KernelReport>& reports) {
  Judge judge(c);
  for (const KernelReport& report : reports) {
    check(report.instrumented, "--limits: this build counts nothing: it has no instrumented kernels");
    judge.judge(report.kernel, "sectors", ratio(report.sectors, report.ideal_sectors), c.limits.sectors);
    judge.judge(report.kernel, "wavefronts", ratio(report.wavefronts, report.ideal_wavefronts), c.limits.wavefronts);
    if (const simt::LineReport* line = worst_line(report))
      judge.judge(report.kernel, "wavefronts of a line", ratio(line->wavefronts, line->ideal_wavefronts),
                  c.limits.wavefronts, line->place);
  }
  if (c.bytes > 0) judge.judge(c.operation, "bytes", total_bytes(reports) / c.bytes, c.limits.bytes);
  return judge.take();
}

std::vector<std::string> wasteful_lines(const std::vector<KernelReport>& reports) {
  constexpr size_t kLines = 3;
  std::vector<std::string> notes;
  for (const KernelReport& report : reports)
    for (size_t i = 0; i < std::min(kLines, report.lines.size()) && report.lines[i].wasted() > 0; ++i) {
      const simt::LineReport& line = report.lines[i];
      const int64_t wavefronts = line.wavefronts - line.ideal_wavefronts, sectors = line.sectors - line.ideal_sectors;
      const bool shared = wavefronts > sectors;  // a line may have both
      char text[256];
      std::snprintf(text, sizeof text, "%s  %s: %.2fx, %lld %s", report.kernel.c_str(), line.place.c_str(),
                    shared ? ratio(line.wavefronts, line.ideal_wavefronts) : ratio(line.sectors, line.ideal_sectors),
                    static_cast<long long>(std::max(wavefronts, sectors)),
                    shared ? "wavefronts too many" : "sectors too many");
      notes.push_back(text);
    }
  return notes;
}

}  // namespace nanovlm::bench
