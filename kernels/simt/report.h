// What the executor counts about a kernel. Everything but the shape is counted by the instrumented build only.
#pragma once
#include <cstdint>
#include <string>

namespace nanovlm::simt {

struct KernelReport {
  std::string kernel;
  int64_t launches = 0, blocks = 0;
  int threads = 0;            // of the last launch's blocks
  int64_t static_shared = 0;  // bytes a block, the largest seen
  int64_t dynamic_shared = 0;
  int64_t collectives = 0;  // warp collectives and block barriers, counted a warp
  int64_t mma_flops = 0;

  bool instrumented = false;
  int64_t requests = 0;          // memory instructions, counted a warp
  int64_t lanes = 0;             // active in them, added up
  int64_t sectors = 0;           // 32-byte pieces of global memory that the requests touch
  int64_t ideal_sectors = 0;     // the fewest that hold the bytes they ask for
  int64_t wavefronts = 0;        // passes over the shared-memory banks
  int64_t ideal_wavefronts = 0;  // the fewest for the bytes they ask for
  int64_t dram_bytes = 0;        // sectors touched, each once a launch for reading and once for writing
};

}  // namespace nanovlm::simt
