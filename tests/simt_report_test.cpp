// The executor's counters against kernels whose cost is known by counting on paper.
#include "kernels/simt/report.h"

#include "tests/simt_kernels/counted.cuh"
#include "tests/support/simt_runs.h"

namespace nanovlm::testing {
namespace {

using namespace kernels;

#if defined(NANOVLM_SIMT_INSTRUMENTED)
// The report of one launch; the same whatever the order of threads.
template <class F>
simt::KernelReport report_of(const F& run) {
  simt::KernelReport first;
  for (const simt::Options& options : simt_runs()) {
    INFO(name_of(options));
    simt::Executor executor(options);
    run(executor);
    const simt::KernelReport report = executor.reports().at(0);
    if (first.launches > 0) {
      CHECK(report.requests == first.requests);
      CHECK(report.sectors == first.sectors);
      CHECK(report.wavefronts == first.wavefronts);
      CHECK(report.dram_bytes == first.dram_bytes);
    }
    first = report;
  }
  return first;
}

simt::KernelReport copy_report(int stride) {
  return report_of([&](simt::Executor& executor) {
    SimtArray<float> x(executor, std::vector<float>(static_cast<size_t>(512 * stride))), y(executor, 512);
    launch("copy_with_stride", copy_with_stride, {4, 128, 0, executor.stream()}, x.data(), y.data(), stride);
  });
}

TEST_CASE("counted: sectors of a copy") {
  const simt::KernelReport dense = copy_report(1), sparse = copy_report(8);
  CHECK(dense.requests == 2 * 16);  // 16 warps, a load and a store each
  CHECK(dense.lanes == 32 * dense.requests);
  CHECK(dense.sectors == 2 * 16 * 4);
  CHECK(dense.ideal_sectors == dense.sectors);
  CHECK(dense.dram_bytes == 2 * 512 * 4);
  CHECK(sparse.sectors == 16 * 32 + 16 * 4);  // a load touches a sector a lane
  CHECK(sparse.ideal_sectors == dense.ideal_sectors);
  CHECK(sparse.dram_bytes == 512 * 32 + 512 * 4);
}

template <int kPad>
simt::KernelReport transpose_report() {
  return report_of([&](simt::Executor& executor) {
    SimtArray<float> x(executor, std::vector<float>(1024)), y(executor, 1024);
    launch("transpose_tile", transpose_tile<kPad>, {1, {32, 32}, 0, executor.stream()}, x.data(), y.data());
  });
}

TEST_CASE("counted: bank conflicts of a transposed read") {
  const simt::KernelReport conflicts = transpose_report<0>(), padded = transpose_report<1>();
  CHECK(conflicts.wavefronts == 32 + 32 * 32);
  CHECK(conflicts.ideal_wavefronts == 64);
  CHECK(padded.wavefronts == 64);
  CHECK(padded.static_shared == 32 * 33 * 4);
}

TEST_CASE("counted: active lanes") {
  const simt::KernelReport report = report_of([&](simt::Executor& executor) {
    SimtArray<float> x(executor, std::vector<float>(64)), y(executor, 64);
    launch("half_of_the_lanes", half_of_the_lanes, {1, 64, 0, executor.stream()}, x.data(), y.data());
  });
  CHECK(report.requests == 4);
  CHECK(report.lanes == 4 * 16);
}

TEST_CASE("counted: accesses wider than a load") {
  const simt::KernelReport report = report_of([&](simt::Executor& executor) {
    SimtArray<Wide> x(executor, std::vector<Wide>(32)), y(executor, 32);
    launch("copy_wide", copy_wide, {1, 32, 0, executor.stream()}, x.data(), y.data());
  });
  CHECK(report.sectors == 2 * 32 * 96 / 32);
  CHECK(report.ideal_sectors == report.sectors);
  CHECK(report.wavefronts == report.ideal_wavefronts);
}
#endif

TEST_CASE("a static report names its bound and what is wasted") {
  simt::KernelReport report;
  report.kernel = "example", report.launches = 2, report.blocks = 200, report.threads = 256;
  report.static_shared = 40 * 1024, report.instrumented = true;
  report.requests = 10, report.lanes = 305, report.sectors = 133, report.ideal_sectors = 100;
  report.wavefronts = 40, report.ideal_wavefronts = 10, report.dram_bytes = 6'000'000, report.mma_flops = 0;
  const simt::Compiled compiled{128, 24};
  CHECK(simt::blocks_at_once(report, compiled) == 2);
  CHECK(simt::static_report(report, simt::kH100, &compiled) ==
        "example  100 x 256  shared 40.00 KB  128 registers, spill 24 B, 2 blocks at once (25 %)"
        " | H100 at least: DRAM 1.00 us, L2 0.00 us, shared 0.00 us, tensor 0.00 us: bound by DRAM"
        " | sectors 1.33x ideal, wavefronts 4.00x ideal, lanes 30.50/32");
}

}  // namespace
}  // namespace nanovlm::testing
