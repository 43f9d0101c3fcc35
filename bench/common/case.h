// One thing that a kernel bench measures: an operation in one direction, at one shape and dtype.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "engine/random.h"
#include "tests/support/values.h"

namespace nanovlm::bench {

using testing::Values;

// What an operation wrote, beside what it should have written (tests/support/values.h has the rule).
struct Outcome {
  std::string name;
  Values got, exact, rounded;
  double terms = 0;
};

// The same results by plainer means, or by a library.
struct Baseline {
  std::string name;
  std::function<void()> run;
  bool foreign = false;  // not in our hands: where it throws or is wrong, the bench says so and goes on without it
  std::function<std::vector<Outcome>()> outcomes = {};  // where it writes elsewhere than the instance
  std::vector<std::string> sources = {};                // of CUDA kernels of its own
};

// An operation with operands of its own on a device.
struct Instance {
  std::function<void()> run;
  std::function<std::vector<Outcome>()> outcomes;  // of the last run
  std::vector<Baseline> baselines;
};

// What a kernel's static report may show at most (bench/<subject> --limits).
struct Limits {
  double sectors = 1.10;     // of global memory, against the fewest
  double wavefronts = 1.10;  // of shared memory, against the fewest: of a kernel, and of each line that matters in it
  double bytes = 1.10;       // that the operation moves, against the least
};

// A figure above its limit that is known, and why it stays.
struct KnownExcess {
  std::string kernel;  // or the operation, for bytes
  std::string figure;  // sectors, wavefronts, wavefronts of a line, or bytes
  double at_most;
  std::string reason;
};

struct Case {
  std::string operation, dir;
  DType dtype;
  std::vector<std::pair<std::string, int64_t>> shape;  // by column
  double flops;     // by the usual convention: a causal mask counts half, attention's backward is 2.5 times forward
  double bytes;     // the least: every operand read once, every result written once; 0: not known
  double full = 1;  // the full-size problem against this one: bounds of a GPU are given for the full size
  std::vector<std::string> sources = {};  // of the CUDA kernels
  std::function<Instance(uint64_t seed)> make = {};
  Limits limits = {};
  std::vector<KnownExcess> excesses = {};
};

// The largest error relative to the result's largest number. Ends the bench where one is more than `slack` times what
// rounding explains.
double checked_error(const Case& c, const std::string& impl, const std::vector<Outcome>& outcomes, double slack = 1);

// Random operands: drawn and rounded on the host, then copied.
Tensor normal(Shape shape, DType dtype, Random& random, const Device& device, float deviation = 1);
Values values_of(const Tensor& x);  // f32, bf16 or i32

}  // namespace nanovlm::bench
