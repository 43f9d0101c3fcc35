// Ways to run a kernel on the simt executor, and its memory: what every test of a CUDA kernel goes through.
#pragma once
#include <cstring>
#include <string>
#include <vector>

#include "kernels/simt/executor.h"
#include "tests/support/catch.h"

namespace nanovlm::testing {

// The runs a sound kernel must survive with the same bits. Random warp priorities and LIFO find missing barriers, late
// copies find missing waits; several workers find what only holds for blocks in sequence.
inline std::vector<simt::Options> simt_runs() {
  using simt::Copies, simt::Options, simt::Order;
  return {{.order = Order::fifo, .copies = Copies::late},
          {.order = Order::fifo, .copies = Copies::early},
          {.order = Order::lifo, .copies = Copies::late},
          {.order = Order::random, .copies = Copies::late, .seed = 1},
          {.order = Order::priorities, .copies = Copies::early, .seed = 2},
          {.order = Order::priorities, .copies = Copies::late, .seed = 3},
          {.order = Order::priorities, .copies = Copies::late, .seed = 4, .workers = 2}};
}

inline std::string name_of(const simt::Options& options) {
  return std::string("simt, ") + simt::name_of(options.order) +
         (options.copies == simt::Copies::late ? ", late copies, seed " : ", early copies, seed ") +
         std::to_string(options.seed) + ", workers " + std::to_string(options.workers);
}

// An array in the executor's device memory, between red zones. Starts as all-ones bytes: NaN as a float.
template <class T>
class SimtArray {
 public:
  SimtArray(simt::Executor& executor, size_t size)
      : executor_(executor),
        size_(size),
        data_(static_cast<T*>(executor.allocate(static_cast<int64_t>(size * sizeof(T))))) {}
  SimtArray(simt::Executor& executor, const std::vector<T>& values) : SimtArray(executor, values.size()) {
    std::memcpy(static_cast<void*>(data_), values.data(), size_ * sizeof(T));
  }
  ~SimtArray() { executor_.free(data_); }
  SimtArray(const SimtArray&) = delete;
  SimtArray& operator=(const SimtArray&) = delete;

  T* data() { return data_; }
  std::vector<T> values() const {
    executor_.check_red_zones("test");
    return {data_, data_ + size_};
  }

 private:
  simt::Executor& executor_;
  size_t size_;
  T* data_;
};

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Calls f(executor) for every run, where f returns a vector; requires the same bits of all and returns them.
template <class F>
auto same_in_all_runs(const F& f, const std::vector<simt::Options>& runs = simt_runs()) {
  decltype(f(std::declval<simt::Executor&>())) first;
  bool any = false;
  for (const simt::Options& options : runs) {
    INFO(name_of(options));
    simt::Executor executor(options);
    auto result = f(executor);
    if (any) REQUIRE(same_bits(result, first));
    first = std::move(result);
    any = true;
  }
  return first;
}

// What run(executor) fails with, or "no error".
template <class F>
std::string kernel_error(const simt::Options& options, const F& run) {
  simt::Executor executor(options);
  try {
    run(executor);
  } catch (const simt::KernelError& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace nanovlm::testing
