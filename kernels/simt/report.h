// What the executor counts about a kernel. Everything but the shape is counted by the instrumented build only.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace nanovlm::simt {

// What the accesses cost that one line of a kernel's source makes.
struct LineReport {
  std::string place;  // "kernels/norm/norm.cu:42", or the wrapper's line
  int64_t requests = 0;
  int64_t sectors = 0, ideal_sectors = 0, wavefronts = 0, ideal_wavefronts = 0;  // as in KernelReport
  int64_t wasted() const { return sectors - ideal_sectors + wavefronts - ideal_wavefronts; }
};

struct KernelReport {
  std::string kernel;
  const void* function = nullptr;  // of the last launch: its template arguments tell variants apart
  int64_t launches = 0, blocks = 0;
  int threads = 0;            // of the last launch's blocks
  int64_t static_shared = 0;  // bytes a block, the largest seen
  int64_t dynamic_shared = 0;
  int64_t collectives = 0;  // warp collectives and block barriers, counted a warp
  int64_t mma_flops = 0;

  bool instrumented = false;
  int64_t requests = 0;           // memory instructions, counted a warp
  int64_t lanes = 0;              // active in them, added up
  int64_t sectors = 0;            // 32-byte pieces of global memory that the requests touch
  int64_t ideal_sectors = 0;      // the fewest that hold the bytes they ask for
  int64_t wavefronts = 0;         // passes over the shared-memory banks
  int64_t ideal_wavefronts = 0;   // the fewest for the bytes they ask for
  int64_t dram_bytes = 0;         // sectors touched, each once a launch for reading and once for writing
  std::vector<LineReport> lines;  // the most wasteful first
};

// What a kernel's time is bounded by. Rates are what programs reach, not what data sheets say.
struct Gpu {
  const char* name;
  int multiprocessors;
  double dram_bytes, l2_bytes, shared_bytes, tensor_flops, fma_flops;  // a second; fma: fp32 without tensor cores
};
constexpr Gpu kH100{"H100", 132, 3.0e12, 5.5e12, 132 * 128 * 1.755e9, 798e12, 60e12};
constexpr Gpu kH200{"H200", 132, 4.3e12, 5.5e12, 132 * 128 * 1.755e9, 798e12, 60e12};

// What `ptxas -v` says of a kernel.
struct Compiled {
  int registers = 0;
  int spill_bytes = 0;
};

// Lower bounds of one launch, in seconds.
struct Bounds {
  double dram, l2, shared, tensor;
  const char* largest;  // the name of the one that binds
};
Bounds bounds(const KernelReport& report, const Gpu& gpu);

// Blocks that one multiprocessor holds at once (sm_90: 65,536 registers, 2,048 threads, 32 blocks, 228 KB of shared
// memory).
int blocks_at_once(const KernelReport& report, const Compiled& compiled);

// The static report of a kernel in one line: a bound and a checklist, no time. Without `compiled` it says nothing of
// registers and occupancy; without the instrumented build, nothing of accesses.
std::string static_report(const KernelReport& report, const Gpu& gpu, const Compiled* compiled);

}  // namespace nanovlm::simt
