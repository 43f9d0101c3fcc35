#include "apps/common/run_log.h"

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/error.h"

namespace nanovlm {

RunLog::RunLog(const std::string& folder)
    : folder_(folder), path_(folder + "/metrics.jsonl"), terminal_(isatty(STDERR_FILENO) == 1) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  check(!error, folder, ": the output folder can't be created: ", error.message());
}

void RunLog::begin() {
  std::error_code error;
  // An earlier run's metrics stay, under the first free number.
  for (int n = 1; std::filesystem::exists(path_, error); ++n) {
    const std::string aside = text(folder_, "/metrics.", n, ".jsonl");
    if (!std::filesystem::exists(aside, error)) std::filesystem::rename(path_, aside, error);
    check(!error, path_, ": an earlier run's metrics can't be moved to ", aside, ": ", error.message());
  }
  metrics_.open(path_);
  check(metrics_.good(), path_, ": can't be written");
}

void RunLog::write(const nlohmann::json& line) {
  // Bytes that are no UTF-8 (in a folder's name, say) are replaced: better than a run lost at its end.
  metrics_ << line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
  metrics_.flush();
  check(metrics_.good(), path_, ": can't be written (is the disk full?)");
}

void RunLog::show(const StepProgress& p) {
  const auto now = Clock::now();
  const std::chrono::duration<double> since = now - shown_;
  if (since.count() < (terminal_ ? 0.2 : 10.0) && p.step < p.steps) return;
  shown_ = now;
  const double left = p.step > 0 ? seconds() / static_cast<double>(p.step) * static_cast<double>(p.steps - p.step) : 0;
  std::fprintf(stderr,
               "%sstep %lld/%lld  loss %.4f  lr %.2e  %.0f tokens/s  %.1f samples/s  data wait %.0f%%  ETA %d:%02d%s",
               terminal_ ? "\r\033[K" : "", static_cast<long long>(p.step), static_cast<long long>(p.steps), p.loss,
               p.lr, p.tokens_per_second, p.samples_per_second, 100 * p.wait_share, static_cast<int>(left) / 60,
               static_cast<int>(left) % 60, terminal_ ? "" : "\n");
  line_open_ = terminal_;
}

void RunLog::note(const std::string& line) {
  end_line();
  std::fprintf(stderr, "%s\n", line.c_str());
}

void RunLog::end_line() {
  if (line_open_) std::fputc('\n', stderr);
  line_open_ = false;
}

double RunLog::seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

}  // namespace nanovlm
