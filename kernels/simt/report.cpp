#include "kernels/simt/report.h"

#include <algorithm>
#include <iomanip>
#include <sstream>

namespace nanovlm::simt {
namespace {

constexpr double kSectorBytes = 32, kWavefrontBytes = 128;

double ratio(int64_t found, int64_t ideal) {
  return ideal > 0 ? static_cast<double>(found) / static_cast<double>(ideal) : 1;
}

}  // namespace

Bounds bounds(const KernelReport& report, const Gpu& gpu) {
  const double launches = static_cast<double>(std::max<int64_t>(report.launches, 1));
  Bounds b{static_cast<double>(report.dram_bytes) / gpu.dram_bytes / launches,
           static_cast<double>(report.sectors) * kSectorBytes / gpu.l2_bytes / launches,
           static_cast<double>(report.wavefronts) * kWavefrontBytes / gpu.shared_bytes / launches,
           static_cast<double>(report.mma_flops) / gpu.tensor_flops / launches, "DRAM"};
  double largest = b.dram;
  const auto compare = [&](double time, const char* name) {
    if (time > largest) largest = time, b.largest = name;
  };
  compare(b.l2, "L2");
  compare(b.shared, "shared memory");
  compare(b.tensor, "tensor cores");
  return b;
}

int blocks_at_once(const KernelReport& report, const Compiled& compiled) {
  if (report.threads <= 0) return 0;
  const int warps = (report.threads + 31) / 32;
  const int registers_of_warp = (compiled.registers * 32 + 255) / 256 * 256;   // given out by 256
  const int64_t shared = report.static_shared + report.dynamic_shared + 1024;  // 1 KB is the system's
  int64_t blocks = std::min<int64_t>(32, 2048 / (warps * 32));
  if (registers_of_warp > 0) blocks = std::min<int64_t>(blocks, 65536 / (registers_of_warp * warps));
  return static_cast<int>(std::min<int64_t>(blocks, 228 * 1024 / shared));
}

std::string static_report(const KernelReport& report, const Gpu& gpu, const Compiled* compiled) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(2);
  out << report.kernel << "  " << report.blocks / std::max<int64_t>(report.launches, 1) << " x " << report.threads
      << "  shared " << (report.static_shared + report.dynamic_shared) / 1024.0 << " KB";
  if (compiled) {
    const int blocks = blocks_at_once(report, *compiled);
    out << "  " << compiled->registers << " registers, spill " << compiled->spill_bytes << " B, " << blocks
        << " blocks at once (" << 100 * blocks * report.threads / 2048 << " %)";
  }
  if (report.instrumented) {
    const Bounds b = bounds(report, gpu);
    out << " | " << gpu.name << " at least: DRAM " << b.dram * 1e6 << " us, L2 " << b.l2 * 1e6 << " us, shared "
        << b.shared * 1e6 << " us, tensor " << b.tensor * 1e6 << " us: bound by " << b.largest << " | sectors "
        << ratio(report.sectors, report.ideal_sectors) << "x ideal, wavefronts "
        << ratio(report.wavefronts, report.ideal_wavefronts) << "x ideal, lanes "
        << ratio(report.lanes, report.requests) << "/32";
  }
  return out.str();
}

}  // namespace nanovlm::simt
