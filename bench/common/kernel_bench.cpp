#include "bench/common/kernel_bench.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <new>
#include <stdexcept>

#include "bench/common/compare.h"
#include "bench/common/gpu_clocks.h"
#include "bench/common/gpu_launches.h"
#include "bench/common/static_report.h"
#include "engine/error.h"

namespace nanovlm::bench {
namespace {

DType dtype_named(const std::string& name) { return name == "bf16" ? DType::bf16 : DType::f32; }

constexpr double kBaselineSlack = 10;  // a baseline may round more often than the operation

constexpr double kCaches = 3;  // operands that rotate through so many times the last cache's bytes are cold

// What tells an implementation's rows apart.
Report::Row labels(const Case& c, const std::string& impl) {
  Report::Row row = {{"impl", value(impl)},
                     {"operation", value(c.operation)},
                     {"dir", value(c.dir)},
                     {"dtype", value(std::string(name_of(c.dtype)))}};
  for (const auto& [name, size] : c.shape) row.push_back({name, value(size)});
  return row;
}

std::vector<double> microseconds(std::vector<double> seconds) {
  for (double& each : seconds) each *= 1e6;
  return seconds;
}

// An implementation that has been found right.
struct Contender {
  std::string name;
  double error;
  Report::Row launches;  // none of a foreign library's
  std::function<void()> call;
};

Report::Row checked_row(const Case& c, const std::string& impl, double error, const Report::Row& launches = {}) {
  Report::Row row = labels(c, impl);
  row.push_back({"rel_err", value(error, 7)});
  append(row, launches);
  return row;
}

[[noreturn]] void too_large(const Case& c) {
  std::string shape;
  for (const auto& [name, size] : c.shape) shape += text(' ', name, ' ', size);
  fail("the host's memory does not hold ", c.operation, ' ', c.dir, ' ', name_of(c.dtype), " of", shape,
       ": its operands are ", c.bytes * 1e-9, " GB at least, and what checks them several times that");
}

// Enough instances that a call finds nothing of the last one's operands in a cache, or as many as can be: of small ones
// a large cache holds tens of thousands, and each has tensors of its own.
std::vector<Instance> rotation(const Case& c, double bytes, uint64_t seed) {
  constexpr size_t kMost = 64;
  std::vector<Instance> sets = {c.make(seed)};
  while (static_cast<double>(sets.size()) * c.bytes < bytes && sets.size() < kMost)
    sets.push_back(c.make(seed + sets.size()));
  return sets;
}

}  // namespace

bool Impls::named(const std::string& impl) const { return std::find(names.begin(), names.end(), impl) != names.end(); }

int64_t Request::suited(int64_t for_cuda, int64_t for_cpu, int64_t for_simt) const {
  return device.kind() == DeviceKind::cuda ? for_cuda : device.kind() == DeviceKind::cpu ? for_cpu : for_simt;
}

KernelBench::KernelBench(const std::string& subject, const std::vector<std::string>& directions)
    : subject_(subject), report_(subject) {
  Settings& s = settings_;
  s.directions = directions;
  app().add_option("--dir", s.directions, "directions")->delimiter(',')->check(CLI::IsMember(directions));
  app()
      .add_option("--dtype", s.dtypes, "of activations: bf16, fp32")
      ->delimiter(',')
      ->check(CLI::IsMember({"bf16", "fp32", "f32"}));
  s.device.add_to(app());
  app().add_option("--batch", s.batch, "samples; by default what suits the device")->check(CLI::PositiveNumber);
  app()
      .add_option(
          "--impl", s.impls.names,
          "what is timed: all, or some of ours, naive, separate, library, cublaslt, cudnn, as far as there are any")
      ->delimiter(',')
      ->check(CLI::IsMember({"all", "ours", "naive", "separate", "library", "cublaslt", "cudnn"}));
  app()
      .add_option("--cache", s.cache,
                  "cold: operands rotate through three times the last cache's bytes; hot: they stay; both")
      ->check(CLI::IsMember({"cold", "hot", "both"}))
      ->capture_default_str();
  app()
      .add_option("--check", s.check,
                  "fp64: results are held against the formula, then measured; only: no more than that")
      ->check(CLI::IsMember({"fp64", "only"}))
      ->capture_default_str();
  add_timing_options();
  app().add_option("--seed", s.seed, "of the operands")->capture_default_str();
  app().add_option("--compare", s.compare,
                   "an earlier run's --json FILE: exit 1 where a figure has grown or a row is gone");
  app().add_option("--max-regress", s.max_regress, "by this many per cent")->capture_default_str();
  app().add_flag("--limits", s.limits, "simt: exit 1 where a kernel wastes more than its limits");
  app().add_flag("--no-ptxas", s.no_ptxas, "simt: leave out registers and occupancy, which take nvcc a while");
}

void KernelBench::add_timing_options() {
  Settings& s = settings_;
  const auto number = [&](const std::string& flag, auto& to, const std::string& what, const CLI::Validator& range) {
    return app().add_option(flag, to, what)->check(range);
  };
  number("--min-time", s.min_time, "seconds of measuring an implementation", CLI::NonNegativeNumber)
      ->capture_default_str();
  number("--min-samples", s.min_samples, "timings of an implementation", CLI::PositiveNumber)->capture_default_str();
  number("--max-time", s.max_time, "seconds after which three timings of an implementation are enough",
         CLI::PositiveNumber)
      ->capture_default_str();
  number("--max-noise", s.max_noise, "per cent of noise above which an implementation is timed until --max-time",
         CLI::PositiveNumber);
}

int KernelBench::run(int argc, char** argv, const Cases& cases) try {
  int exit_code = 0;
  if (!report_.parse(argc, argv, exit_code)) return exit_code;
  return measure(cases);
} catch (const std::exception&) {
  return failed(subject_, argc, argv);
}

int KernelBench::measure(const Cases& cases) {
  const Device device = settings_.device.open();
  Request request{device, {}, settings_.directions, settings_.batch, settings_.impls};
  for (const std::string& name : settings_.dtypes) request.dtypes.push_back(dtype_named(name));
  report_.set_device(device);
  const bool simt = device.kind() == DeviceKind::simt;
  for (const Case& c : cases(request))
    if (std::find(request.directions.begin(), request.directions.end(), c.dir) != request.directions.end())
      measure(c, device);
  if (simt && !settings_.only_checks())
    report_.note(
        "simt: what the kernels of one call need and waste, counted; h100_us and h200_us are lower bounds for the "
        "full-size problem, no times. = rows: the operation; mb is what it moves, least_mb what it must.");
  if (!settings_.compare.empty())
    for (std::string& line : regressions(settings_.compare, report_.rows(), settings_.max_regress))
      faults_.push_back(std::move(line));
  if (report_.rows().empty()) faults_.push_back("nothing was measured: none of what --impl names is there");
  for (const std::string& fault : faults_) report_.note(fault);
  const int exit_code = report_.finish();
  return faults_.empty() ? exit_code : 1;
}

void KernelBench::measure(const Case& c, const Device& device) try {
  if (device.kind() == DeviceKind::simt) return report_case(c, device);
  const bool both = settings_.cache == "both" && !settings_.only_checks();
  if (settings_.cache != "hot") time_case(c, true, device);
  if (settings_.cache == "hot" || both) time_case(c, false, device);
} catch (const std::bad_alloc&) {
  too_large(c);
} catch (const std::length_error&) {
  too_large(c);
}

void KernelBench::report_case(const Case& c, const Device& device) {
  const Instance instance = c.make(static_cast<uint64_t>(settings_.seed));
  if (settings_.impls.wanted("ours")) report_kernels(c, "ours", instance.run, instance.outcomes, device);
  for (const Baseline& baseline : instance.baselines) {
    if (!settings_.impls.named(baseline.name)) continue;
    Case other = c;
    other.operation = baseline.name + ' ' + c.operation, other.sources = baseline.sources, other.excesses.clear();
    report_kernels(other, baseline.name, baseline.run, baseline.outcomes ? baseline.outcomes : instance.outcomes,
                   device);
  }
  note_absent(c, instance);
}

void KernelBench::report_kernels(const Case& c, const std::string& impl, const std::function<void()>& run,
                                 const std::function<std::vector<Outcome>()>& outcomes, const Device& device) {
  if (!settings_.no_ptxas) compiled_.compile(c.sources);
  forget_counts(device);
  run();
  const std::vector<simt::KernelReport> reports = counts(device);
  const double error = checked_error(c, impl, outcomes(), impl == "ours" ? 1 : kBaselineSlack);
  if (settings_.only_checks()) return report_.add(checked_row(c, impl, error));
  for (Report::Row& row : static_rows(c, reports, compiled_)) report_.add(std::move(row));
  for (const std::string& line : wasteful_lines(reports)) report_.note(line);
  for (const KnownExcess& excess : c.excesses)
    report_.note(text(excess.kernel, ": known excess of ", excess.figure, ": ", excess.reason));
  if (settings_.limits && impl == "ours")
    for (const std::string& line : beyond_limits(c, reports))
      faults_.push_back(text("beyond its limit, ", c.dir, ' ', name_of(c.dtype), ": ", line));
}

double KernelBench::product_ceiling(const Device& device, DType dtype) {
  double& rate = product_rates_[dtype == DType::bf16];
  if (rate == 0) rate = product_rate(device, dtype);
  if (copy_rate_ == 0) copy_rate_ = copy_rate(device);
  report_.set_ceiling("copy_gbps", copy_rate_ * 1e-9);
  report_.set_ceiling(text("product_tflops_", name_of(dtype)), rate * 1e-12);
  return rate;
}

void KernelBench::note_absent(const Case& c, const Instance& instance) {
  for (const std::string& name : settings_.impls.names) {
    const auto& all = instance.baselines;
    if (name != "all" && name != "ours" &&
        std::none_of(all.begin(), all.end(), [&](const Baseline& baseline) { return baseline.name == name; }))
      report_.note(
          text("--impl ", name, ": ", c.operation, ' ', c.dir, ' ', name_of(c.dtype), " has none on this device"));
  }
}

void KernelBench::time_case(const Case& c, bool cold, const Device& device) {
  const Clock clock(device);
  // What a call moves is not known of all: there the operands stay.
  const bool rotate = cold && c.bytes > 0 && !settings_.only_checks();
  const double wanted = rotate ? kCaches * static_cast<double>(clock.cache_bytes()) : 0;
  const std::vector<Instance> sets = rotation(c, wanted, static_cast<uint64_t>(settings_.seed));
  const double rotated = static_cast<double>(sets.size()) * c.bytes;
  if (rotated < wanted)
    report_.note(text(c.operation, ' ', c.dir, ' ', name_of(c.dtype), ": not cold: ", sets.size(),
                      " sets of operands, the most, are ", rotated * 1e-6, " MB, ", kCaches, " times the last cache ",
                      wanted * 1e-6, " MB"));
  std::vector<Contender> contenders;
  const auto add = [&](const std::string& name, double slack, bool foreign, const auto& of, const auto& outcomes) {
    if (!settings_.impls.wanted(name)) return;
    // Memory is new to a set's first call, and libraries prepare in theirs: neither is part of a time. Of a slow
    // implementation, to which that is little, not all sets may come to be called.
    const Report::Row launches = launch_columns(device, of(sets[0]));
    double taken = 0;
    for (size_t set = 1; set < sets.size() && taken < settings_.max_time; ++set)
      taken += clock.seconds(of(sets[set]), 1);
    contenders.push_back({name, checked_error(c, name, outcomes(), slack), foreign ? Report::Row{} : launches,
                          [&sets, of, turn = size_t{0}]() mutable { of(sets[turn++ % sets.size()])(); }});
  };
  add(
      "ours", 1, false, [](const Instance& set) -> const std::function<void()>& { return set.run; }, sets[0].outcomes);
  for (size_t i = 0; i < sets[0].baselines.size(); ++i) {
    const Baseline& baseline = sets[0].baselines[i];
    const auto of = [i](const Instance& set) -> const std::function<void()>& { return set.baselines[i].run; };
    try {
      add(baseline.name, kBaselineSlack, baseline.foreign, of,
          baseline.outcomes ? baseline.outcomes : sets[0].outcomes);
    } catch (const std::exception& error) {
      if (!baseline.foreign) throw;
      report_.note(
          text(baseline.name, " is left out of ", c.operation, ' ', c.dir, ' ', name_of(c.dtype), ": ", error.what()));
    }
  }
  note_absent(c, sets[0]);
  if (contenders.empty()) return;
  if (settings_.only_checks()) {
    for (const Contender& each : contenders) report_.add(checked_row(c, each.name, each.error, each.launches));
    return;
  }

  const double peak = product_ceiling(device, c.dtype);
  std::vector<std::function<void()>> calls;
  for (Contender& each : contenders) calls.push_back(std::move(each.call));
  GpuClocks clocks(device);
  const std::vector<Timing> timings = time_in_turns(calls, {.min_seconds = settings_.min_time,
                                                            .min_samples = settings_.min_samples,
                                                            .max_noise = settings_.max_noise / 100,
                                                            .max_seconds = settings_.max_time,
                                                            .clock = clock});
  const Report::Row clock_columns = clocks.stop();
  for (size_t i = 0; i < timings.size(); ++i) {
    Report::Row row = timed_row(c, contenders[i].name, rotate, timings[i], contenders[i].error, peak);
    // Cold operands cannot move more than a copy does: such a row was measured from a cache after all.
    const bool cached = rotated < wanted || c.bytes / timings[i].median > copy_rate_;
    if (c.bytes > 0) row.push_back({"cache", value(!rotate ? "hot" : cached ? "cache" : "cold")});
    for (size_t other = 0; timings.size() > 1 && other < timings.size(); ++other)
      if (contenders[other].name != "ours")
        row.push_back({"x_" + contenders[other].name, value(timings[other].median / timings[i].median, 2)});
    append(row, contenders[i].launches);
    append(row, clock_columns);
    report_.add(std::move(row));
  }
}

Report::Row KernelBench::timed_row(const Case& c, const std::string& impl, bool rotate, const Timing& t, double error,
                                   double peak) const {
  Report::Row row = labels(c, impl);
  row.push_back({"operands", value(rotate ? "rotate" : "stay")});
  const auto add = [&row](const Report::Row& more) { append(row, more); };
  add({{"us_p50", value(t.median * 1e6, 1)},
       {"us_p10", value(t.p10 * 1e6, 1)},
       {"us_p90", value(t.p90 * 1e6, 1)},
       {"us_min", value(t.least * 1e6, 1)},
       {"n", value(static_cast<int64_t>(t.samples.size()))},
       {"noise_pct", value(100 * t.noise(), 1)},
       {"samples_us", value(microseconds(t.samples))}});
  // Of what is not known, or is none, there is no rate.
  if (c.flops > 0)
    add({{"tflops", value(c.flops / t.median * 1e-12, 3)}, {"pct_peak", value(100 * c.flops / t.median / peak, 1)}});
  if (c.bytes > 0)
    add({{"gbps", value(c.bytes / t.median * 1e-9, 1)}, {"pct_copy", value(100 * c.bytes / t.median / copy_rate_, 1)}});
  const double floor = std::max(c.bytes / copy_rate_, c.flops / peak);
  if (floor > 0) add({{"pct_floor", value(100 * floor / t.median, 1)}});
  add({{"rel_err", value(error, 7)}});
  return row;
}

}  // namespace nanovlm::bench
