// What a training run leaves behind and shows: metrics.jsonl with the reference's keys, and a progress line.
#pragma once
#include <chrono>
#include <fstream>
#include <string>

#include <nlohmann/json_fwd.hpp>

namespace nanovlm {

struct StepProgress {
  int64_t step = 0, steps = 0;
  double loss = 0, lr = 0;
  double tokens_per_second = 0, samples_per_second = 0;
  double wait_share = 0;  // of the step's time, spent waiting for data
};

class RunLog {
 public:
  // Creates `folder`. Error: it can't.
  explicit RunLog(const std::string& folder);

  // Creates folder/metrics.jsonl; an earlier run's is moved to metrics.1.jsonl, .2, ... Apart from the constructor,
  // for a run that does not start has no metrics. Error: it can't be written.
  void begin();

  void write(const nlohmann::json& line);   // one object, flushed at once; after begin()
  void show(const StepProgress& progress);  // on stderr: one line that is overwritten, or a line now and then in a file
  void note(const std::string& line);       // a line of its own on stderr
  void end_line();                          // so that what comes next does not overwrite the progress line
  double seconds() const;                   // since the run began

 private:
  using Clock = std::chrono::steady_clock;
  std::ofstream metrics_;
  std::string folder_, path_;
  Clock::time_point start_ = Clock::now(), shown_{};
  bool terminal_;
  bool line_open_ = false;
};

}  // namespace nanovlm
