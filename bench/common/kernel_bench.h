// The one frame of every kernel bench. It opens the device, checks each result against the fp64 formula first - a wrong
// kernel never gets a time - and then measures what the device can show:
//
//   cpu, cuda   time beside baselines, in turns: percentiles, FLOPs, bytes, per cent of the ceilings measured in the
//               same process and of the floor that they set
//   simt        no time: what the CUDA kernels need and waste, counted by the executor, and the bound that follows; of
//               baselines where --impl names them, since the executor takes its time over plain kernels
#pragma once
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "bench/common/case.h"
#include "bench/common/compiled.h"
#include "bench/common/device_choice.h"
#include "bench/common/harness.h"

namespace nanovlm::bench {

// The implementations that --impl asks for.
struct Impls {
  std::vector<std::string> names = {"all"};

  bool named(const std::string& impl) const;
  bool wanted(const std::string& impl) const { return named("all") || named(impl); }
};

// What the command line asks for.
struct Request {
  Device device;
  std::vector<DType> dtypes;
  std::vector<std::string> directions;
  int64_t batch = 0;  // 0: not said
  Impls impls = {};

  int64_t suited(int64_t for_cuda, int64_t for_cpu, int64_t for_simt) const;
  int64_t batch_or(int64_t for_cuda, int64_t for_cpu, int64_t for_simt) const {
    return batch > 0 ? batch : suited(for_cuda, for_cpu, for_simt);
  }
};

class KernelBench {
 public:
  using Cases = std::function<std::vector<Case>(const Request&)>;

  // The directions that the subject has, all of which are the default.
  KernelBench(const std::string& subject, const std::vector<std::string>& directions);
  CLI::App& app() { return report_.app(); }  // for options of the subject's own

  // Parses, measures each case, prints. Returns the exit code: 1 for a wrong result, a figure beyond --limits or a
  // regression from --compare; 2 for bad usage.
  int run(int argc, char** argv, const Cases& cases);

 private:
  struct Settings {
    std::vector<std::string> dtypes = {"bf16", "f32"}, directions;
    Impls impls;
    DeviceChoice device;
    std::string cache = "cold", check = "fp64", compare;
    double max_regress = 3, min_time = 0.5, max_time = 2;
    double max_noise = std::numeric_limits<double>::infinity();  // per cent
    int min_samples = 20;
    int64_t batch = 0, seed = 1;
    bool limits = false, no_ptxas = false;

    bool only_checks() const { return check == "only"; }
  };

  void add_timing_options();
  int measure(const Cases& cases);
  void measure(const Case& c, const Device& device);
  void time_case(const Case& c, bool cold, const Device& device);
  void report_case(const Case& c, const Device& device);
  void report_kernels(const Case& c, const std::string& impl, const std::function<void()>& run,
                      const std::function<std::vector<Outcome>()>& outcomes, const Device& device);
  Report::Row timed_row(const Case& c, const std::string& impl, bool rotate, const Timing& timing, double error,
                        double peak) const;
  double product_ceiling(const Device& device, DType dtype);
  void note_absent(const Case& c, const Instance& instance);  // what was asked for by name and is not there

  std::string subject_;
  Settings settings_;
  Report report_;
  CompiledKernels compiled_;
  double copy_rate_ = 0, product_rates_[2] = {};  // measured when first asked for
  std::vector<std::string> faults_;               // what makes the exit code 1
};

}  // namespace nanovlm::bench
