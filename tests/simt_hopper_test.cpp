// The host twins of Hopper's wrappers against the tables of the PTX ISA manual, written down here once more; what they
// catch; and what a GPU gave, once tools/record_golden has been run on one.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/simt_kernels/golden_hopper.cuh"
#include "tests/support/simt_runs.h"

namespace nanovlm::testing {
namespace {

using namespace kernels;
using Words = std::vector<uint32_t>;

Words copied_box(int64_t rows, int64_t columns, int row, int column) {
  return same_in_all_runs([&](simt::Executor& executor) {
    SimtArray<bf16> from(executor, golden_numbers(rows * columns));
    SimtArray<uint32_t> out(executor, 64 * 32);
    launch("golden_copy_box", golden_copy_box, {1, kGoldenThreads, kGoldenHopperShared, executor.stream()},
           tensor_map("test", from.data(), rows, columns, kGoldenRows), out.data(), row, column);
    return out.values();
  });
}

TEST_CASE("twin: copy_box swizzles pieces of 16 bytes in rows of 128, with zeros outside the matrix") {
  // "Swizzling Modes", 128B: which of its 8 pieces stands where in each of 8 rows.
  constexpr int kPiece[8][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {1, 0, 3, 2, 5, 4, 7, 6}, {2, 3, 0, 1, 6, 7, 4, 5},
                                {3, 2, 1, 0, 7, 6, 5, 4}, {4, 5, 6, 7, 0, 1, 2, 3}, {5, 4, 7, 6, 1, 0, 3, 2},
                                {6, 7, 4, 5, 2, 3, 0, 1}, {7, 6, 5, 4, 3, 2, 1, 0}};
  constexpr int64_t kRows = 100, kColumns = 88;
  for (const auto& [row, column] : {std::pair{0, 0}, {40, 32}, {-3, -8}, {100, 0}}) {
    CAPTURE(row, column);
    const Words out = copied_box(kRows, kColumns, row, column);
    int wrong = 0;
    for (int r = 0; r < 64; ++r)
      for (int place = 0; place < 8; ++place)
        for (int i = 0; i < 8; ++i) {
          const int64_t from_row = row + r, from_column = column + 8 * kPiece[r % 8][place] + i;
          const bool inside = from_row >= 0 && from_row < kRows && from_column >= 0 && from_column < kColumns;
          const uint32_t word = out[static_cast<size_t>(32 * r + 4 * place + i / 2)];
          const uint16_t expected = inside ? static_cast<uint16_t>(from_row * kColumns + from_column + 1) : 0;
          wrong += (i % 2 ? word >> 16 : word & 0xffff) != expected;
        }
    CHECK(wrong == 0);
  }
}

Words run(const GoldenProduct& p) {
  return same_in_all_runs([&](simt::Executor& executor) {
    SimtArray<bf16> a(executor, golden_matrix(1)), b(executor, golden_matrix(2));
    SimtArray<uint32_t> out(executor, p.words_out());
    launch(p.name, p.kernel, {1, kGoldenThreads, kGoldenHopperShared, executor.stream()}, golden_map_of_a(p, a.data()),
           golden_map_of_b(p, b.data()), static_cast<const bf16*>(a.data()), out.data());
    return out.values();
  });
}

TEST_CASE("twin: wgmma finds its operands by descriptors, and holds a and d as the manual's formulas say") {
  const std::vector<bf16> a = golden_matrix(1), b = golden_matrix(2);
  for (const GoldenProduct& p : golden_products()) {
    CAPTURE(p.name);
    const Words out = run(p);
    int wrong = 0;
    for (int thread = 0; thread < kGoldenThreads; ++thread)
      for (int i = 0; i < p.N / 2; ++i) {
        // "Register Fragments", wgmma .m64nNk16, D: groupID = laneid >> 2, threadID_in_group = laneid % 4.
        const int lane = thread % 32, warp = thread / 32;
        const int row = warp * 16 + (lane >> 2) + (i % 4 < 2 ? 0 : 8), column = i / 4 * 8 + lane % 4 * 2 + (i & 1);
        double exact = 0, magnitude = 0;
        for (int k = 0; k < 32; ++k) {
          const float x = static_cast<float>(a[static_cast<size_t>(p.transpose_a ? k * 64 + row : row * 64 + k)]);
          const float y =
              static_cast<float>(b[static_cast<size_t>(p.transpose_b ? k * p.N + column : column * 64 + k)]);
          exact += double{x} * y, magnitude += std::fabs(double{x} * y);
        }
        const float got = float_of(out[static_cast<size_t>(p.N / 2 * thread + i)]);
        wrong += !(std::fabs(got - exact) <= 32 * 6e-8 * magnitude);
      }
    CHECK(wrong == 0);
  }
}

TEST_CASE("twin: a descriptor's fields are where the manual's table has them") {
  const uint64_t d = matrix_descriptor(0x2c410, 0x2000, 0x400);
  CHECK((d & 0x3fff) == 0x2c41);       // bits 0-13: start address, without its last 4 bits
  CHECK((d >> 16 & 0x3fff) == 0x200);  // 16-29: leading dimension byte offset
  CHECK((d >> 32 & 0x3fff) == 0x40);   // 32-45: stride dimension byte offset
  CHECK((d >> 49 & 7) == 0);           // 49-51: base offset
  CHECK(d >> 62 == 1);                 // 62-63: 128-byte swizzle
}

// ---- phases, and what goes wrong with asynchronous work

// Sums `steps` boxes through one stage, so that each must have been read before the next comes.
enum class Bug { none, no_wait_for_box, no_wait_for_products, box_over_products, not_made, shifted };
template <Bug kBug>
__global__ void box_sums(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, float* out,
                         int steps) {
  constexpr int kBoxBytes = kGoldenRows * 128;
  GPU_SHARED(uint64_t, arrived, [1]);
  GPU_SHARED_DYNAMIC(bf16, memory);
  bf16 *const a_box = on_pattern(memory + 0) + (kBug == Bug::shifted ? 64 : 0), *const b_box = a_box + kBoxBytes / 2;
  if (threadIdx.x == 0 && kBug != Bug::not_made) {
    arrivals_init(&arrived[0], 1);
    fence_async_proxy();
  }
  __syncthreads();
  float d[64] = {};
  for (int step = 0; step < steps; ++step) {
    if (threadIdx.x == 0) {
      arrive_expecting(&arrived[0], 3 * kBoxBytes);
      copy_box(a_box, a, 0, 64 * step, &arrived[0]);
      copy_box(b_box, b, 0, 64 * step, &arrived[0]);
      copy_box(b_box + kBoxBytes / 2, b, 64, 64 * step, &arrived[0]);
    }
    if (kBug != Bug::no_wait_for_box) wait_phase(&arrived[0], step % 2);
    wgmma_fence();
    for (int k = 0; k < 64; k += 16)
      wgmma_m64n128k16<false, false>(
          d, matrix_descriptor(shared_address(a_box) + static_cast<uint32_t>(2 * k), kBoxBytes, 1024),
          matrix_descriptor(shared_address(b_box) + static_cast<uint32_t>(2 * k), kBoxBytes, 1024));
    wgmma_commit();
    if (kBug != Bug::box_over_products && kBug != Bug::no_wait_for_products) wgmma_wait<0>();
    __syncthreads();
    if (kBug == Bug::no_wait_for_products || kBug == Bug::no_wait_for_box) break;
  }
  for (int i = 0; i < 64; ++i) out[64 * threadIdx.x + i] = d[i];
}

template <Bug kBug>
std::vector<float> box_sums_of(simt::Executor& executor) {
  constexpr int kSteps = 3;
  SimtArray<bf16> a(executor, std::vector<bf16>(64 * 64 * kSteps, bf16(1.0f)));
  SimtArray<bf16> b(executor, std::vector<bf16>(128 * 64 * kSteps, bf16(2.0f)));
  SimtArray<float> out(executor, 64 * kGoldenThreads);
  launch("box_sums", box_sums<kBug>, {1, kGoldenThreads, kGoldenHopperShared + 128, executor.stream()},
         tensor_map("test", a.data(), 64, 64 * kSteps, 64), tensor_map("test", b.data(), 128, 64 * kSteps, 64),
         out.data(), kSteps);
  return out.values();
}

TEST_CASE("hopper: one stage used again and again, phase by phase") {
  const std::vector<float> sums = same_in_all_runs(box_sums_of<Bug::none>);
  CHECK(sums == std::vector<float>(64 * kGoldenThreads, 2 * 192));
}

template <Bug kBug>
void check_fails_with(const std::string& what) {
  for (const simt::Options& options : simt_runs()) {
    INFO(name_of(options));
    simt::Executor executor(options);
    CHECK_THROWS_WITH(box_sums_of<kBug>(executor), contains(what));
  }
}

TEST_CASE("hopper: planted faults are named") {
  check_fails_with<Bug::box_over_products>("may still be reading");
  check_fails_with<Bug::not_made>("arrivals_init has not made this barrier");
#if defined(NANOVLM_SIMT_INSTRUMENTED)
  check_fails_with<Bug::no_wait_for_box>("of shared");
#endif
  check_fails_with<Bug::shifted>("copy_box to an address that is 128 past a multiple of 1024");
}

// ---- order by phases alone: no barrier of the block stands between the copies and their readers

enum class Pipeline { sound, no_wait, wrong_parity, refilled_early, released_early, one_lane_waits, made_unseen };

// out = the sum of `tiles` boxes: warp 0 fills two stages, the other three read them; `full` tells these that a stage
// is there, `empty` tells warp 0 that they have read it.
constexpr int kReaders = 3 * kWarp;
template <Pipeline kBug>
__global__ void pipelined_sums(const __grid_constant__ TensorMap from, float* out, int tiles) {
  constexpr int kBoxEntries = kGoldenRows * kBoxColumns;
  GPU_SHARED(uint64_t, full, [2]);
  GPU_SHARED(uint64_t, empty, [2]);
  GPU_SHARED_DYNAMIC(bf16, memory);
  bf16* const stages = on_pattern(memory + 0);
  const int thread = thread_in_block();
  if (thread == 0) {
    for (int stage = 0; stage < 2; ++stage) {
      arrivals_init(&full[stage], 1);
      arrivals_init(&empty[stage], kReaders);
    }
    fence_async_proxy();
  }
  if (kBug != Pipeline::made_unseen) __syncthreads();
  float sum = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % 2, parity = tile / 2 % 2;
    bf16* const box = stages + stage * kBoxEntries;
    if (thread == 0) {
      if (tile >= 2 && kBug != Pipeline::refilled_early) wait_phase(&empty[stage], 1 - parity);
      arrive_expecting(&full[stage], 2 * kBoxEntries);
      copy_box(box, from, kGoldenRows * tile, 0, &full[stage]);
    } else if (thread >= kWarp) {
      const int waited_for = kBug == Pipeline::wrong_parity ? 1 - parity : parity;
      if (kBug == Pipeline::one_lane_waits ? thread % kWarp == 0 : kBug != Pipeline::no_wait)
        wait_phase(&full[stage], waited_for);
      if (kBug == Pipeline::released_early) arrive_expecting(&empty[stage], 0);
      for (int i = 8 * (thread - kWarp); i < kBoxEntries; i += 8 * kReaders) {
        const Vec<float, 8> entries = load_floats<8>(box + i);
        for (int e = 0; e < 8; ++e) sum += entries[e];
      }
      fence_async_proxy();  // the copy engine writes next where this thread has read
      if (kBug != Pipeline::released_early) arrive_expecting(&empty[stage], 0);
    }
  }
  if (thread >= kWarp) out[thread - kWarp] = sum;
}

constexpr int kPipelineTiles = 7;
template <Pipeline kBug>
std::vector<float> pipelined_sums_of(simt::Executor& executor) {
  SimtArray<bf16> from(executor, std::vector<bf16>(kPipelineTiles * kGoldenRows * kBoxColumns, bf16(1.0f)));
  SimtArray<float> out(executor, kReaders);
  launch("pipelined_sums", pipelined_sums<kBug>, {1, kGoldenThreads, kGoldenHopperShared, executor.stream()},
         tensor_map("test", from.data(), kPipelineTiles * kGoldenRows, kBoxColumns, kGoldenRows), out.data(),
         kPipelineTiles);
  return out.values();
}

TEST_CASE("hopper: stages that change hands by phases, without a barrier of the block") {
  float sum = 0;
  for (const float x : same_in_all_runs(pipelined_sums_of<Pipeline::sound>)) sum += x;
  CHECK(sum == kPipelineTiles * kGoldenRows * kBoxColumns);
}

#if defined(NANOVLM_SIMT_INSTRUMENTED)
// Every order names it. A reader whose bytes still lack is told that instead of the race; a wait for a phase that has
// been and gone may never end, which is told too.
template <Pipeline kBug>
void check_races(const std::vector<std::string>& either) {
  for (simt::Options options : simt_runs()) {
    INFO(name_of(options));
    options.watchdog_seconds = 0.2;
    simt::Executor executor(options);
    std::string message = "no error";
    try {
      pipelined_sums_of<kBug>(executor);
    } catch (const simt::KernelError& e) {
      message = e.what();
    }
    CAPTURE(message);
    CHECK(std::any_of(either.begin(), either.end(),
                      [&](const std::string& what) { return message.find(what) != std::string::npos; }));
    CHECK(message.find("simt_hopper_test.cpp:") != std::string::npos);
  }
}

TEST_CASE("hopper: planted races among asynchronous copies, their readers and their barriers") {
  const std::string reads = "write/read of shared memory: copy_box at", early = "missing wait";
  const std::string refills = "read/write of shared memory: ", stuck = "has got any further";
  check_races<Pipeline::no_wait>({reads, early, "unwritten"});
  check_races<Pipeline::wrong_parity>({reads, early, "unwritten", stuck});
  check_races<Pipeline::one_lane_waits>({reads, early, "unwritten"});
  check_races<Pipeline::refilled_early>({refills, "write/write of shared memory: copy_box at", "have arrived in this"});
  check_races<Pipeline::released_early>({refills, reads});
  check_races<Pipeline::made_unseen>({"a barrier that another thread made", "has not made this barrier"});
}
#endif

TEST_CASE("hopper: without a wait, late work has not been done") {
  simt::Executor late({.copies = simt::Copies::late});
  CHECK(box_sums_of<Bug::no_wait_for_products>(late)[0] == 0);
#if !defined(NANOVLM_SIMT_INSTRUMENTED)  // an error there
  CHECK(std::isnan(box_sums_of<Bug::no_wait_for_box>(late)[0]));
#endif
}

TEST_CASE("hopper: matrices without a tensor map are refused by name") {
  alignas(16) bf16 data[64];
  CHECK_THROWS_WITH(tensor_map("mine", data, 4, 12, 64), contains("mine: 4 rows of 12"));
  CHECK_THROWS_WITH(tensor_map("mine", data + 1, 4, 8, 64), contains("no tensor map"));
}

TEST_CASE("hopper: twins give what a GPU gave") {
  const std::filesystem::path path = std::filesystem::path(NANOVLM_FIXTURES) / "ptx" / "golden.json";
  const nlohmann::json recorded =
      std::filesystem::exists(path) ? nlohmann::json::parse(std::ifstream(path)).at("cases") : nlohmann::json::object();
  if (!recorded.contains("copy_box")) {
    WARN("no recording of a Hopper GPU: run tools/record_golden on one and commit tests/fixtures/ptx/golden.json");
    return;
  }
  CHECK(recorded.at("copy_box").get<Words>() ==
        copied_box(kGoldenBox.rows, kGoldenBox.columns, kGoldenBox.row, kGoldenBox.column));
  for (const GoldenProduct& p : golden_products()) {
    CAPTURE(p.name);
    if (!recorded.contains(p.name)) {
      WARN("not recorded yet: " << p.name);
      continue;
    }
    const Words gpu = recorded.at(p.name), host = run(p);
    REQUIRE(gpu.size() == host.size());
    int wrong = 0;
    for (size_t i = 0; i < gpu.size(); ++i) wrong += !(std::fabs(float_of(gpu[i]) - float_of(host[i])) <= 1e-3f);
    CHECK(wrong == 0);
  }
}

}  // namespace
}  // namespace nanovlm::testing
