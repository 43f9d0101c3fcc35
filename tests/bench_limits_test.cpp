// What `bench/<subject> --limits` finds in the counts of kernels, made up here.
#include "bench/common/static_report.h"
#include "tests/support/catch.h"

namespace nanovlm::bench {
namespace {

// A kernel that wastes nothing: 1,000 sectors, all of them new, and 1,000 wavefronts of two lines.
simt::KernelReport flawless() {
  simt::KernelReport report;
  report.kernel = "kernel", report.instrumented = true;
  report.sectors = report.ideal_sectors = report.wavefronts = report.ideal_wavefronts = 1000;
  report.dram_bytes = 32 * report.sectors;
  report.lines = {{"a.cu:1", 1, 0, 0, 970, 970}, {"a.cu:2", 1, 0, 0, 30, 30}};
  return report;
}

Case case_of(std::vector<KnownExcess> excesses = {}) {
  Case c{"operation", "fwd", DType::f32, {}, 0, 32000};
  c.excesses = std::move(excesses);
  return c;
}

using Lines = std::vector<std::string>;

TEST_CASE("--limits finds what a kernel, an operation or a line wastes, and nothing else") {
  CHECK(beyond_limits(case_of(), {flawless()}).empty());

  simt::KernelReport report = flawless();
  report.sectors = 1101;
  CHECK(beyond_limits(case_of(), {report}) == Lines{"kernel: sectors 1.10x the least, limit 1.10x"});
  report.sectors = 1100;
  CHECK(beyond_limits(case_of(), {report}).empty());

  report = flawless();
  report.wavefronts = 1200;
  CHECK(beyond_limits(case_of(), {report}) == Lines{"kernel: wavefronts 1.20x the least, limit 1.10x"});

  report = flawless();
  report.dram_bytes = 64000;
  CHECK(beyond_limits(case_of(), {report}) == Lines{"operation: bytes 2.00x the least, limit 1.10x"});
}

TEST_CASE("--limits finds a line that the kernel's average hides, unless it hardly matters") {
  simt::KernelReport report = flawless();
  report.lines[1].wavefronts = 60, report.wavefronts = 1030;
  CHECK(beyond_limits(case_of(), {report}) ==
        Lines{"kernel a.cu:2: wavefronts of a line 2.00x the least, limit 1.10x"});
  report.lines[1].wavefronts = 20, report.lines[1].ideal_wavefronts = 10, report.wavefronts = 1010;
  CHECK(beyond_limits(case_of(), {report}).empty());
}

TEST_CASE("--limits lets a known excess be, but neither grow nor outlive its reason") {
  const KnownExcess known{"kernel", "sectors", 1.5, "a reason"};
  simt::KernelReport report = flawless();
  report.sectors = 1400;
  CHECK(beyond_limits(case_of({known}), {report}).empty());
  report.sectors = 1600;
  CHECK(beyond_limits(case_of({known}), {report}) ==
        Lines{"kernel: sectors 1.60x the least, limit 1.50x, already raised: a reason"});
  CHECK(beyond_limits(case_of({known}), {flawless()}) ==
        Lines{"kernel: sectors 1.00x the least, limit 1.10x: no longer an excess, yet listed as one"});
  CHECK(beyond_limits(case_of({{"gone", "sectors", 1.5, "a reason"}}), {flawless()}) ==
        Lines{"gone: sectors is listed as an excess, but nothing of that name has run"});
}

TEST_CASE("--limits refuses a build that counts nothing") {
  simt::KernelReport report = flawless();
  report.instrumented = false;
  CHECK_THROWS_WITH(beyond_limits(case_of(), {report}), contains("counts nothing"));
}

}  // namespace
}  // namespace nanovlm::bench
