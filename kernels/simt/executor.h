// The simt device: executes the CUDA kernels' own source on the host, and checks it.
//
//     simt::Executor executor({.order = simt::Order::priorities, .seed = 7});
//     kernels::rms_norm(Simt{}, {x, ...}, executor.stream());   // throws KernelError where a kernel is wrong
//
// Blocks run one after another on each worker; the threads of a block are fibers (block.h).
#pragma once
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/launch.h"
#include "kernels/simt/report.h"
#include "kernels/simt/where.h"

namespace nanovlm::simt {

using kernels::LaunchShape;

// Which ready thread runs next. A sound kernel gives the same bits in all of them; a missing barrier shows in some.
enum class Order {
  fifo,        // in turn, by number
  lifo,        // the warp released last runs ahead, highest numbers first
  random,      // any ready thread
  priorities,  // warps have random priorities, drawn anew at each block barrier: the most urgent runs as far as it can
};
const char* name_of(Order order);

// When a cp.async moves its bytes: at once, or not before the wait for it.
enum class Copies { early, late };

struct Options {
  Order order = Order::fifo;
  Copies copies = Copies::late;
  uint64_t seed = 1;
  int workers = 1;                    // host threads that run blocks; an instrumented launch uses one
  double watchdog_seconds = 20;       // for one block without its threads getting any further
  int64_t shared_limit = 227 * 1024;  // bytes of shared memory a block: sm_90
  bool check_accesses = true;         // instrumented kernels: races, bounds, unwritten reads, counters
};

struct Index {
  unsigned x, y, z;
};

// A fault of a kernel, named with its place. what() tells all of it in a line.
struct KernelError : std::runtime_error {
  KernelError(const std::string& kernel, const std::string& block, const std::string& thread, const std::string& where,
              const std::string& problem)
      : std::runtime_error(kernel + ": block " + block + ", thread " + thread + ", " + where + ": " + problem),
        kernel(kernel),
        where(where),
        problem(problem) {}
  std::string kernel, where, problem;
};

// One launch, as kernels/simt/words.h hands it over.
struct Launch {
  const char* name;
  LaunchShape shape;
  void (*thread_body)(const void* arguments);
  const void* arguments;
  bool instrumented;     // its memory accesses call the hooks (access_hooks.cpp)
  const void* function;  // the kernel
};

class DeviceMemory;

class Executor {
 public:
  explicit Executor(const Options& options = {});
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  Options options;  // may be changed between launches

  // The stream that carries this executor into kernel contracts.
  Stream stream() { return {this}; }
  // Throws where the stream has no executor.
  static Executor& of(Stream stream, const char* kernel);

  // Device memory with red zones, filled with NaN. 256-byte aligned; freed by free(). Kernels of the instrumented build
  // may leave it for the host's memory, but not for a red zone or what has been freed. Never null: throws
  // std::bad_alloc.
  void* allocate(int64_t bytes);
  void free(void* memory);
  int64_t free_bytes();  // of device memory
  // Throws where a red zone has been written.
  void check_red_zones(const char* after);

  void run(const Launch& launch);

  // One entry a kernel name, in the order of first launches; emptied by clear_reports().
  std::vector<KernelReport> reports() const;
  void clear_reports();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nanovlm::simt
