// The CUDA runtime library for machines without a GPU, as far as kernels/cuda/ calls it: in tests the cuda device's own
// host code runs on it, with nothing of that replaced but the loader of cuBLASLt (cublaslt.cpp).
//
// Device memory is the executor's, kernels are a third compilation of their source (launch.h), and what streams are
// given waits in queues. CUDA promises order within a stream and what events add; a Schedule picks among all that may
// happen. So memory that is used again too early, a missing event, or a call that a graph forbids shows here. What a
// driver, NVIDIA's libraries and a GPU's instructions do is not proven by it.
//
// As the library it stands for, it is one for the process.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

struct CUstream_st;

namespace nanovlm::simt {
class Executor;
}

namespace nanovlm::stand_in {

// When work is done that is ready: at once, or not before something waits for it. cuda::Gpu makes its compute stream
// first, and then the one that copies.
enum class Schedule { early, late, compute_late, copies_late, random };

struct Machine {
  Schedule schedule = Schedule::late;
  uint64_t seed = 1;  // of Schedule::random, and of the times that events tell
  int driver = 13000, devices = 1, capability_major = 9, capability_minor = 0;
  int64_t memory = int64_t{8} << 30;  // bytes of device memory
  int64_t failing_call = 0;           // the n-th call from now that may fail does; 0: none
};

// The machine that the library finds, from now on. Errors that stay until a process ends are forgotten.
void set_machine(const Machine& machine);

// What the process has taken and not given back.
struct Held {
  int64_t device_bytes = 0, pinned_bytes = 0, streams = 0, events = 0, graphs = 0;
  int64_t products = 0;  // handles, descriptors, layouts and preferences of cuBLASLt
  bool operator==(const Held&) const = default;
};
Held held();
int64_t calls_that_may_fail();  // so far

// ---- for launch.h and cublaslt.cpp

// At the end of a stream's queue, or into the graph that is recording it. An exception that `work` throws is an error
// that stays, found by later calls. True unless this is the call that fails.
bool enqueue(CUstream_st* stream, std::function<void(simt::Executor&)> work);
// One more call that may fail: whether it does.
bool fails();
// So many more of Held::products.
void hold_products(int more);

}  // namespace nanovlm::stand_in
