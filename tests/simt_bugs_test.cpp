// Every planted bug is caught, in an exception that names its line; and none hangs. The plain build catches some by
// their effect alone (a result that depends on the order); the instrumented build names all.
#include <string>
#include <vector>

#include "tests/simt_kernels/planted.cuh"
#include "tests/support/buffer.h"
#include "tests/support/simt_runs.h"

namespace nanovlm::testing {
namespace {

using namespace kernels;

#if defined(NANOVLM_SIMT_INSTRUMENTED)
constexpr bool kInstrumented = true;
#else
constexpr bool kInstrumented = false;
#endif

std::vector<float> counting(int n) {
  std::vector<float> x;
  for (int i = 0; i < n; ++i) x.push_back(static_cast<float>(i + 1));
  return x;
}

// Runs a kernel in every order. Requires each run to fail at `line` of planted.cuh with `problem` in its message.
template <class F>
void require_named(int line, const std::string& problem, const F& run) {
  for (const simt::Options& options : simt_runs()) {
    INFO(name_of(options));
    const std::string message = kernel_error(options, run);
    CAPTURE(message);
    CHECK(message.find("planted.cuh:" + std::to_string(line)) != std::string::npos);
    CHECK(message.find(problem) != std::string::npos);
  }
}

// Some run's result differs from `right`.
template <class F>
void require_visible(const std::vector<float>& right, const F& run) {
  int wrong = 0;
  for (const simt::Options& options : simt_runs()) {
    simt::Executor executor(options);
    wrong += !same_bits(run(executor), right);
  }
  CHECK(wrong > 0);
}

// A bug that the instrumented build names, and that shows in the plain build as a wrong result of some order.
template <class F>
void require_caught(int line, const std::string& problem, const std::vector<float>& right, const F& run) {
  if (kInstrumented) {
    require_named(line, problem, run);
  } else {
    require_visible(right, run);
  }
}

TEST_CASE("planted: a tile is read before a barrier") {
  const std::vector<float> x = counting(kThreads);
  require_caught(kTileReadLine, "race", {x.rbegin(), x.rend()}, [&](simt::Executor& executor) {
    SimtArray<float> in(executor, x), out(executor, kThreads);
    launch("tile_read_without_barrier", tile_read_without_barrier, {1, kThreads, 0, executor.stream()}, in.data(),
           out.data());
    return out.values();
  });
}

TEST_CASE("planted: a tile is written again before a barrier") {
  std::vector<float> right(kThreads);
  const std::vector<float> x = counting(3 * kThreads);
  for (int t = 0; t < 3; ++t)
    for (int i = 0; i < kThreads; ++i) right[i] += x[t * kThreads + kThreads - 1 - i];
  require_caught(kTileReuseLine, "race", right, [&](simt::Executor& executor) {
    SimtArray<float> in(executor, x), out(executor, kThreads);
    launch("tile_reuse_without_barrier", tile_reuse_without_barrier, {1, kThreads, 0, executor.stream()}, in.data(),
           out.data(), 3);
    return out.values();
  });
}

TEST_CASE("planted: lanes exchange through shared memory without __syncwarp") {
  const std::vector<float> x = counting(kThreads);
  std::vector<float> right;
  for (int i = 0; i < kThreads; ++i) right.push_back(x[i / kWarp * kWarp + (i + 1) % kWarp]);
  require_caught(kNoSyncwarpLine, "race", right, [&](simt::Executor& executor) {
    SimtArray<float> in(executor, x), out(executor, kThreads);
    launch("warp_exchange_without_syncwarp", warp_exchange_without_syncwarp, {1, kThreads, 0, executor.stream()},
           in.data(), out.data());
    return out.values();
  });
}

TEST_CASE("planted: a cp.async is not waited for") {
  const std::vector<float> x = counting(4 * kThreads);
  require_caught(kMissingWaitLine, "missing wait", {x.begin(), x.begin() + kThreads}, [&](simt::Executor& executor) {
    SimtArray<float> in(executor, x), out(executor, kThreads);
    launch("missing_wait", missing_wait, {1, kThreads, 0, executor.stream()}, in.data(), out.data());
    return out.values();
  });
}

TEST_CASE("planted: shared memory is read that nobody has written") {
  const std::vector<float> x = counting(kThreads);
  require_caught(kUnwrittenLine, "unwritten", {x.rbegin(), x.rend()}, [&](simt::Executor& executor) {
    SimtArray<float> in(executor, x), out(executor, kThreads);
    launch("unwritten_read", unwritten_read, {1, kThreads, 0, executor.stream()}, in.data(), out.data());
    return out.values();
  });
}

TEST_CASE("planted: divergent barriers and early exits") {
  const auto with_output = [](auto kernel, auto... arguments) {
    return [=](simt::Executor& executor) {
      SimtArray<float> out(executor, kThreads);
      launch("planted", kernel, {1, kThreads, 0, executor.stream()}, out.data(), arguments...);
    };
  };
  require_named(kEarlyExitLine, "divergent barrier", with_output(early_exit, 50));
  require_named(kExitBeforeShuffleLine, "which has returned", with_output(exit_before_shuffle, 50));

  // Either of the two barriers may be the one that is reported.
  for (const simt::Options& options : simt_runs()) {
    simt::Executor executor(options);
    CHECK_THROWS_WITH(with_output(divergent_barrier)(executor),
                      contains("divergent barrier") && contains(simt::text("planted.cuh:", kDivergentLine)) &&
                          contains(simt::text("planted.cuh:", kDivergentLine + 2)));
  }
}

TEST_CASE("planted: shuffles outside their mask") {
  const auto with_output = [](auto kernel) {
    return [=](simt::Executor& executor) {
      SimtArray<float> out(executor, kThreads);
      launch("planted", kernel, {1, kThreads, 0, executor.stream()}, out.data());
    };
  };
  require_named(kOutsideMaskLine, "reads lane 20, which does not take part",
                with_output(shuffle_from_outside_the_mask));
  require_named(kNotInMaskLine, "is not in its own mask", with_output(shuffle_with_a_mask_of_others));
}

TEST_CASE("planted: shared memory out of bounds") {
  const auto with_output = [](auto kernel) {
    return [=](simt::Executor& executor) {
      SimtArray<float> out(executor, kThreads);
      launch("planted", kernel, {1, kThreads, 0, executor.stream()}, out.data());
    };
  };
  require_named(kSharedIndexLine, "out of bounds: index 64 of shared array 'tile', which has 64",
                with_output(shared_index_out_of_bounds));
  require_named(kSecondDynamicLine, "'second' and 'first' are both GPU_SHARED_DYNAMIC", [](simt::Executor& executor) {
    SimtArray<float> out(executor, kThreads);
    launch("planted", two_dynamic_arrays, {1, kThreads, 1024, executor.stream()}, out.data());
  });
  if (kInstrumented) {
    require_named(kSharedPointerLine, "out of bounds: write of 4 bytes of shared memory",
                  with_output(shared_pointer_out_of_bounds));
  } else {  // the red zone tells the array, not the line
    simt::Executor executor;
    CHECK_THROWS_WITH(with_output(shared_pointer_out_of_bounds)(executor), contains("red zone of shared array 'tile'"));
  }
}

TEST_CASE("planted: a misaligned access of 16 bytes") {
  require_named(kMisalignedLine, "misaligned: ld16 of 16 bytes at an address that is", [](simt::Executor& executor) {
    SimtArray<float> in(executor, counting(kThreads + 4)), out(executor, kThreads);
    launch("misaligned_load", misaligned_load, {1, kThreads, 0, executor.stream()}, in.data(), out.data());
  });
}

TEST_CASE("planted: misaligned accesses by no wrapper") {
  if (!kInstrumented) return;  // the host does them
  require_named(
      kMisalignedPairLine, "misaligned: read of 4 bytes at an address that is 2 past a multiple of 4",
      [](simt::Executor& executor) {
        SimtArray<bf16> in(executor, kThreads + 1);
        SimtArray<unsigned> out(executor, kThreads);
        launch("misaligned_pair", misaligned_pair, {1, kThreads, 0, executor.stream()}, in.data(), out.data());
      });
  require_named(kMisalignedStoreLine, "misaligned: write of 8 bytes at an address that is 4 past a multiple of 8",
                [](simt::Executor& executor) {
                  SimtArray<float> out(executor, 2 * kThreads + 1);
                  launch("misaligned_store", misaligned_store, {1, kThreads, 0, executor.stream()}, out.data());
                });
  require_named(kMisalignedSharedLine, "misaligned: read of 4 bytes at an address that is 2 past a multiple of 4",
                [](simt::Executor& executor) {
                  SimtArray<unsigned> out(executor, kThreads);
                  launch("misaligned_in_shared_memory", misaligned_in_shared_memory,
                         {1, kThreads, 0, executor.stream()}, out.data());
                });
}

TEST_CASE("planted: global memory out of bounds") {
  const auto write = [](simt::Executor& executor) {
    SimtArray<float> out(executor, 40);
    launch("write_past_the_end", write_past_the_end, {1, kThreads, 0, executor.stream()}, out.data(), 40);
    return out.values();
  };
  if (kInstrumented) {
    require_named(kGlobalWriteLine,
                  "out of bounds: write of 4 bytes 0 bytes past the end of an allocation of 160 bytes", write);
    require_named(kGlobalReadLine, "out of bounds: read of 4 bytes 4 bytes before the start",
                  [](simt::Executor& executor) {
                    SimtArray<float> in(executor, counting(kThreads)), out(executor, kThreads);
                    launch("read_before_the_start", read_before_the_start, {1, kThreads, 0, executor.stream()},
                           in.data(), out.data());
                  });
  } else {
    simt::Executor executor;
    CHECK_THROWS_WITH(write(executor), contains("memory past the end of an allocation of 160 bytes was written"));
  }
}

TEST_CASE("planted: a kernel leaves an operand of its test") {
  const auto write = [](simt::Executor& executor) {
    Buffer out(40, DType::f32);
    launch("write_past_the_end", write_past_the_end, {1, kThreads, 0, executor.stream()}, static_cast<float*>(out), 40);
    return out.intact();
  };
  const auto read = [](simt::Executor& executor) {
    Buffer in(kThreads, DType::f32), out(kThreads, DType::f32);
    launch("read_before_the_start", read_before_the_start, {1, kThreads, 0, executor.stream()}, static_cast<float*>(in),
           static_cast<float*>(out));
    return out.values()[0];
  };
  if (kInstrumented) {
    require_named(kGlobalWriteLine,
                  "out of bounds: write of 4 bytes 0 bytes past the end of an allocation of 160 bytes", write);
    require_named(kGlobalReadLine, "out of bounds: read of 4 bytes 4 bytes before the start", read);
  } else {  // no line, but neither passes for a result
    simt::Executor executor;
    CHECK_FALSE(write(executor));
    CHECK(std::isnan(read(executor)));
  }
}

TEST_CASE("planted: blocks add without an atomic") {
  if (!kInstrumented) return;  // blocks run one after another: the sum is right
  require_named(kMissingAtomicLine, "race", [](simt::Executor& executor) {
    SimtArray<float> out(executor, std::vector<float>{0});
    launch("missing_atomic", missing_atomic, {4, kThreads, 0, executor.stream()}, out.data());
  });
}

TEST_CASE("planted: a block waits for another") {
  for (simt::Options options : simt_runs()) {
    if (options.workers > 1) continue;  // two blocks at once may well meet
    INFO(name_of(options));
    options.watchdog_seconds = 0.2;
    simt::Executor executor(options);
    SimtArray<int> count(executor, std::vector<int>(1)), flags(executor, std::vector<int>(5));
    CHECK_THROWS_WITH(
        launch("spin", sync_of_the_grid, {5, kThreads, 0, executor.stream()}, count.data()),
        contains(simt::text("planted.cuh:", kAtomicSpinLine)) && contains("must not wait for another block"));
    CHECK_THROWS_WITH(
        launch("spin", sync_of_the_grid_by_stores, {5, kThreads, 0, executor.stream()}, flags.data()),
        contains(simt::text("planted.cuh:", kVolatileSpinLine)) && contains("must not wait for another block"));
  }
}

TEST_CASE("a thread that spins on another of its block gets there") {
  for (const simt::Options& options : simt_runs()) {
    simt::Executor executor(options);
    SimtArray<int> flag(executor, std::vector<int>{0});
    launch("spin", spin_on_another_thread, {2, kThreads, 0, executor.stream()}, flag.data());
    CHECK(flag.values()[0] == 2);
  }
}

TEST_CASE("an executor goes on after a failed kernel") {
  simt::Executor executor({.workers = 2});
  SimtArray<float> out(executor, kThreads);
  for (int turn = 0; turn < 3; ++turn) {
    CHECK_THROWS_AS(launch("early_exit", early_exit, {1, kThreads, 0, executor.stream()}, out.data(), 50),
                    simt::KernelError);
    launch("early_exit", early_exit, {1, kThreads, 0, executor.stream()}, out.data(), kThreads);
    CHECK(out.values() == std::vector<float>(kThreads, 1.0f));
  }
}

TEST_CASE("a launch that CUDA would refuse is refused, by name") {
  simt::Executor executor;
  SimtArray<float> out(executor, kThreads);
  const auto start = [&](const LaunchShape& shape) { launch("early_exit", early_exit, shape, out.data(), kThreads); };
  CHECK_THROWS_WITH(start({1, 1025, 0, executor.stream()}),
                    "early_exit: block.x is 1025, but a launch allows 1 to 1024");
  CHECK_THROWS_WITH(start({0, 32, 0, executor.stream()}),
                    "early_exit: grid.x is 0, but a launch allows 1 to 2147483647");
  CHECK_THROWS_WITH(start({1, {64, 32}, 0, executor.stream()}),
                    "early_exit: threads in a block is 2048, but a launch allows 1 to 1024");
  CHECK_THROWS_WITH(start({1, 32, 228 * 1024, executor.stream()}),
                    "early_exit: asks for 233472 bytes of dynamic shared memory, but a block has at most 232448");
  CHECK_THROWS_WITH(start({1, 32, 0, {}}),
                    "early_exit: launched on the simt device with a stream that has no executor");
  CHECK_THROWS_WITH(launch("early_exit", early_exit, {1, 32, 0, executor.stream()}, out.data(), int64_t{1} << 33),
                    "early_exit: argument 8589934592 does not fit the kernel's parameter of 4 bytes");
}

}  // namespace
}  // namespace nanovlm::testing
