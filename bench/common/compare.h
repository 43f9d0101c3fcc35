// A bench's rows against those of an earlier run.
#pragma once
#include <string>
#include <vector>

#include "bench/common/harness.h"

namespace nanovlm::bench {

// Reads what `--json FILE` wrote before, and returns a line for each figure that has grown by more than `percent`:
// time, bytes, sectors, wavefronts, registers, spills; and one for each old row that this run has no partner for. Two
// rows are of one thing where everything that comes before the first figure is equal. Errors: the file is no such
// document; no row is in both.
std::vector<std::string> regressions(const std::string& file, const std::vector<Report::Row>& rows, double percent);

}  // namespace nanovlm::bench
