// The report of CUDA kernels without a GPU: a case is run once on the simt device, whose instrumented kernels count.
#pragma once
#include <string>
#include <vector>

#include "bench/common/case.h"
#include "bench/common/compiled.h"
#include "bench/common/harness.h"
#include "engine/device.h"
#include "kernels/simt/report.h"

namespace nanovlm::bench {

// What a simt device has counted since it was to forget all before. Errors: the device is another.
void forget_counts(const Device& device);
std::vector<simt::KernelReport> counts(const Device& device);

// A row a kernel, and one for the operation as a whole.
std::vector<Report::Row> static_rows(const Case& c, const std::vector<simt::KernelReport>& reports,
                                     const CompiledKernels& compiled);

// What exceeds the case's limits, a line each: kernel, figure, limit, and the source lines that waste most. A known
// excess that is no longer one is named too.
std::vector<std::string> beyond_limits(const Case& c, const std::vector<simt::KernelReport>& reports);

// The lines of source that waste most accesses, as notes.
std::vector<std::string> wasteful_lines(const std::vector<simt::KernelReport>& reports);

}  // namespace nanovlm::bench
