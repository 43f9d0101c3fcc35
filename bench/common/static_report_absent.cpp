// Builds without the simt device (-DNANOVLM_SIMT=OFF), which is what counts.
#include "bench/common/static_report.h"
#include "engine/error.h"

namespace nanovlm::bench {
namespace {

[[noreturn]] void absent() { fail("the simt device is not in this build, so nothing is counted"); }

}  // namespace

void forget_counts(const Device&) { absent(); }
std::vector<simt::KernelReport> counts(const Device&) { absent(); }
std::vector<Report::Row> static_rows(const Case&, const std::vector<simt::KernelReport>&, const CompiledKernels&) {
  absent();
}
std::vector<std::string> beyond_limits(const Case&, const std::vector<simt::KernelReport>&) { absent(); }
std::vector<std::string> wasteful_lines(const std::vector<simt::KernelReport>&) { absent(); }

}  // namespace nanovlm::bench
