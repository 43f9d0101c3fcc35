#include "kernels/simt/executor.h"

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>

#include "kernels/simt/block.h"
#include "kernels/simt/checker.h"
#include "kernels/simt/memory.h"
#include "kernels/simt/watchdog.h"

namespace nanovlm::simt {

const char* name_of(Order order) {
  constexpr const char* names[] = {"fifo", "lifo", "random", "priorities"};
  return names[static_cast<int>(order)];
}

namespace {

uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t z = a * 0x9e3779b97f4a7c15u + b + 0x632be59bd9b4e019u;
  z = (z ^ (z >> 31)) * 0x7fb5d329728ea185u;
  return z ^ (z >> 27);
}

// The order in which a launch's blocks run, as a bijection of 0 ... count-1 that needs no table.
class BlockOrder {
 public:
  BlockOrder(const Options& options, int64_t count, uint64_t seed) : count_(count) {
    if (options.order == Order::lifo) step_ = count - 1, first_ = count - 1;
    if (options.order != Order::random && options.order != Order::priorities) return;
    first_ = static_cast<int64_t>(mix(seed, 1) % static_cast<uint64_t>(count));
    step_ = 1 + static_cast<int64_t>(mix(seed, 2) % static_cast<uint64_t>(count));
    while (std::gcd(step_, count) != 1) ++step_;
  }
  int64_t operator()(int64_t turn) const {
    return static_cast<int64_t>((static_cast<__int128>(turn) * step_ + first_) % count_);
  }

 private:
  int64_t count_, first_ = 0, step_ = 1;
};

}  // namespace

struct Executor::State {
  DeviceMemory memory;
  std::mutex launching;  // one launch at a time
  int64_t launches = 0;
  std::vector<KernelReport> reports;
  std::vector<std::unique_ptr<Block>> blocks;  // one a worker
  std::unique_ptr<Checker> checker;

  KernelReport& report_of(const char* kernel) {
    for (KernelReport& report : reports)
      if (report.kernel == kernel) return report;
    reports.emplace_back().kernel = kernel;
    return reports.back();
  }
};

Executor::Executor(const Options& options) : options(options), state_(std::make_unique<State>()) {}
Executor::~Executor() = default;

Executor& Executor::of(Stream stream, const char* kernel) {
  if (!stream.handle)
    throw std::invalid_argument(text(kernel, ": launched on the simt device with a stream that has no executor"));
  return *static_cast<Executor*>(stream.handle);
}

void* Executor::allocate(int64_t bytes) {
  const std::lock_guard lock(state_->launching);
  return state_->memory.allocate(bytes);
}

void Executor::free(void* memory) {
  const std::lock_guard lock(state_->launching);
  state_->memory.free(memory);
}

int64_t Executor::free_bytes() {
  const std::lock_guard lock(state_->launching);
  return state_->memory.left();
}

void Executor::check_red_zones(const char* after) {
  const std::string overrun = state_->memory.overrun();
  if (!overrun.empty())
    throw KernelError(after, "unknown", "unknown", "?",
                      "out of bounds: " + overrun + " was written (the instrumented build names the line)");
}

std::vector<KernelReport> Executor::reports() const {
  std::vector<KernelReport> reports = state_->reports;
  if (state_->checker)
    for (KernelReport& report : reports) state_->checker->name_lines(report);
  return reports;
}
void Executor::clear_reports() { state_->reports.clear(); }

void Executor::run(const Launch& launch) {
  if (current_block) throw std::logic_error(text(launch.name, ": launched from inside a kernel"));
  State& state = *state_;
  const std::lock_guard lock(state.launching);
  const uint64_t seed = mix(options.seed, static_cast<uint64_t>(state.launches++));
  const int64_t count = launch.shape.grid.count();
  const BlockOrder order(options, count, seed);
  if (launch.shape.shared_bytes < 0 || launch.shape.shared_bytes > options.shared_limit)
    throw std::invalid_argument(text(launch.name, ": asks for ", launch.shape.shared_bytes,
                                     " bytes of dynamic shared memory, but a block has at most ",
                                     options.shared_limit));

  KernelReport& report = state.report_of(launch.name);
  ++report.launches;
  report.blocks += count;
  report.threads = static_cast<int>(launch.shape.block.count());
  report.dynamic_shared = launch.shape.shared_bytes;
  report.function = launch.function;
  Checker* checker = nullptr;
  if (launch.instrumented && options.check_accesses) {
    if (!state.checker) state.checker = std::make_unique<Checker>(state.memory);
    checker = state.checker.get();
    checker->begin_launch(report);
  }

  const int64_t workers = checker ? 1 : std::min<int64_t>(std::max(options.workers, 1), count);
  while (static_cast<int64_t>(state.blocks.size()) < workers) state.blocks.push_back(std::make_unique<Block>());

  std::atomic<int64_t> turn = 0;
  std::mutex failing;
  std::exception_ptr error;
  const auto work = [&](Block& block) {
    try {
      const Watchdog watchdog(options.watchdog_seconds);
      for (int64_t t; (t = turn++) < count;) {
        const int64_t i = order(t), x = launch.shape.grid.x, y = launch.shape.grid.y;
        const Index index{static_cast<unsigned>(i % x), static_cast<unsigned>(i / x % y),
                          static_cast<unsigned>(i / x / y)};
        block.run(launch, options, index, mix(seed, static_cast<uint64_t>(i)), checker);
      }
    } catch (...) {
      turn = count;  // the others stop after their block
      const std::lock_guard lock(failing);
      if (!error) error = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> others;
    for (int64_t w = 1; w < workers; ++w) others.emplace_back([&, w] { work(*state.blocks[static_cast<size_t>(w)]); });
    work(*state.blocks[0]);
  }
  for (int64_t w = 0; w < workers; ++w) state.blocks[static_cast<size_t>(w)]->add_counts(report);
  if (error) std::rethrow_exception(error);
}

}  // namespace nanovlm::simt
