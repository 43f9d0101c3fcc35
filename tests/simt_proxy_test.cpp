// Accesses of shared memory by threads, before those of the copy engine and the tensor cores: the instrumented build
// names each that no fence_async_proxy separates, with both lines.
#include <string>
#include <vector>

#include "tests/simt_kernels/golden_hopper.cuh"
#include "tests/support/simt_runs.h"

namespace nanovlm::testing {
namespace {

using namespace kernels;

constexpr int kBoxEntries = kGoldenRows * kBoxColumns, kBoxBytes = kBoxEntries * 2, kSteps = 3;

// ---- written by threads, read by wgmma

enum class Fenced {
  by_writers,
  between_barriers,  // by one thread, which has met the writers and then meets the readers
  by_readers,
  nowhere,
  before_the_writes,
  by_one_writer,
  by_one_lane_of_readers,
};

// out = the 64 sums a thread of (2 a) b, where threads double a in shared memory.
inline constexpr int kDoubleLine = __LINE__ + 25, kProductLine = __LINE__ + 35;
template <Fenced kFenced>
__global__ void doubled_products(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, float* out) {
  GPU_SHARED(uint64_t, arrived, [1]);
  GPU_SHARED_DYNAMIC(bf16, memory);
  bf16 *const a_box = on_pattern(memory + 0), *const b_box = a_box + kBoxEntries;
  const int thread = thread_in_block();
  if (thread == 0) {
    arrivals_init(&arrived[0], 1);
    fence_async_proxy();
  }
  __syncthreads();
  float d[64] = {};
  for (int step = 0; step < kSteps; ++step) {
    if (thread == 0) {
      arrive_expecting(&arrived[0], 3 * kBoxBytes);
      copy_box(a_box, a, 0, 64 * step, &arrived[0]);
      copy_box(b_box, b, 0, 64 * step, &arrived[0]);
      copy_box(b_box + kBoxEntries, b, 64, 64 * step, &arrived[0]);
    }
    wait_phase(&arrived[0], step % 2);
    if (kFenced == Fenced::before_the_writes) fence_async_proxy();
    for (int i = 8 * thread; i < kBoxEntries; i += 8 * kGoldenThreads) {
      Vec<bf16, 8> entries = ld16(a_box + i);
      for (int e = 0; e < 8; ++e) entries[e] = to_bf16(2 * static_cast<float>(entries[e]));
      st16(a_box + i, entries);
    }
    if (kFenced == Fenced::by_writers || (kFenced == Fenced::by_one_writer && thread == 0)) fence_async_proxy();
    __syncthreads();
    if (kFenced == Fenced::between_barriers && thread == 40) fence_async_proxy();
    if (kFenced == Fenced::between_barriers) __syncthreads();
    if (kFenced == Fenced::by_readers || (kFenced == Fenced::by_one_lane_of_readers && thread % kWarp == 0))
      fence_async_proxy();
    wgmma_fence();
    for (uint32_t k = 0; k < 64; k += 16)
      wgmma_m64n128k16<false, false>(d, matrix_descriptor(shared_address(a_box) + 2 * k, kBoxBytes, 1024),
                                     matrix_descriptor(shared_address(b_box) + 2 * k, kBoxBytes, 1024));
    wgmma_commit();
    wgmma_wait<0>();
    __syncthreads();
  }
  for (int i = 0; i < 64; ++i) out[64 * thread + i] = d[i];
}

template <Fenced kFenced>
std::vector<float> doubled_products_of(simt::Executor& executor) {
  SimtArray<bf16> a(executor, std::vector<bf16>(64 * 64 * kSteps, bf16(1.0f)));
  SimtArray<bf16> b(executor, std::vector<bf16>(128 * 64 * kSteps, bf16(0.5f)));
  SimtArray<float> out(executor, 64 * kGoldenThreads);
  launch("doubled_products", doubled_products<kFenced>, {1, kGoldenThreads, kGoldenHopperShared, executor.stream()},
         tensor_map("test", a.data(), 64, 64 * kSteps, 64), tensor_map("test", b.data(), 128, 64 * kSteps, 64),
         out.data());
  return out.values();
}

TEST_CASE("proxies: a fence after the writes, before the product, on the way from one to the other") {
  const std::vector<float> right(64 * kGoldenThreads, 64 * kSteps);
  CHECK(same_in_all_runs(doubled_products_of<Fenced::by_writers>) == right);
  CHECK(same_in_all_runs(doubled_products_of<Fenced::between_barriers>) == right);
  CHECK(same_in_all_runs(doubled_products_of<Fenced::by_readers>) == right);
}

// ---- made, written or read by threads, then written by the copy engine

enum class Unfenced { nothing, made, written, read };

// out[thread] = the sum of its entries of `kSteps` boxes that pass through one place.
inline constexpr int kMadeLine = __LINE__ + 9, kWrittenLine = __LINE__ + 12, kFirstCopyLine = __LINE__ + 19,
                     kReadLine = __LINE__ + 22;
template <Unfenced kBug>
__global__ void sums_of_boxes(const __grid_constant__ TensorMap from, float* out) {
  GPU_SHARED(uint64_t, arrived, [1]);
  GPU_SHARED_DYNAMIC(bf16, memory);
  bf16* const box = on_pattern(memory + 0);
  const int thread = thread_in_block();
  if (thread == 0) {
    arrivals_init(&arrived[0], 1);
    if (kBug != Unfenced::made) fence_async_proxy();
  }
  for (int i = 8 * thread; i < kBoxEntries; i += 8 * kGoldenThreads) st16(box + i, Vec<bf16, 8>{});
  if (kBug != Unfenced::written && (kBug != Unfenced::made || thread != 0)) fence_async_proxy();
  __syncthreads();
  float sum = 0;
  for (int step = 0; step < kSteps; ++step) {
    if (thread == 0) {
      arrive_expecting(&arrived[0], kBoxBytes);
      copy_box(box, from, 0, 64 * step, &arrived[0]);
    }
    wait_phase(&arrived[0], step % 2);
    for (int i = 8 * thread; i < kBoxEntries; i += 8 * kGoldenThreads) {
      const Vec<bf16, 8> entries = ld16(box + i);
      for (int e = 0; e < 8; ++e) sum += static_cast<float>(entries[e]);
    }
    if (kBug != Unfenced::read) fence_async_proxy();
    __syncthreads();
  }
  out[thread] = sum;
}

template <Unfenced kBug>
std::vector<float> sums_of_boxes_of(simt::Executor& executor) {
  SimtArray<bf16> from(executor, std::vector<bf16>(64 * 64 * kSteps, bf16(1.0f)));
  SimtArray<float> out(executor, kGoldenThreads);
  launch("sums_of_boxes", sums_of_boxes<kBug>, {1, kGoldenThreads, kGoldenHopperShared, executor.stream()},
         tensor_map("test", from.data(), 64, 64 * kSteps, 64), out.data());
  return out.values();
}

TEST_CASE("proxies: a fence before the copy engine writes where threads have written and read") {
  const std::vector<float> right(kGoldenThreads, kBoxEntries / kGoldenThreads * kSteps);
  CHECK(same_in_all_runs(sums_of_boxes_of<Unfenced::nothing>) == right);
}

#if defined(NANOVLM_SIMT_INSTRUMENTED)
// Every order names both lines: `kind` of access, `before` by a thread, `now` by asynchronous work.
template <class F>
void check_named(const std::string& kind, const std::string& before, int before_line, const std::string& now,
                 int now_line, const F& run) {
  const auto place = [](int line) { return "tests/simt_proxy_test.cpp:" + std::to_string(line); };
  for (const simt::Options& options : simt_runs()) {
    INFO(name_of(options));
    const std::string message = kernel_error(options, run);
    CAPTURE(message);
    CHECK(message.find(place(now_line) + ": missing fence_async_proxy, " + kind + " of shared memory: " + before +
                       " at ") != std::string::npos);
    CHECK(message.find(place(before_line) + " by thread (") != std::string::npos);
    CHECK(message.find(") of this block <-> " + now + " at ") != std::string::npos);
  }
}

template <Fenced kFenced>
void check_product_named() {
  check_named("write/read", "st16", kDoubleLine, "wgmma", kProductLine, doubled_products_of<kFenced>);
}

TEST_CASE("proxies: a product of what threads have written without a fence") {
  check_product_named<Fenced::nowhere>();
  check_product_named<Fenced::before_the_writes>();
  check_product_named<Fenced::by_one_writer>();
  check_product_named<Fenced::by_one_lane_of_readers>();
}

TEST_CASE("proxies: a copy at a barrier, or over memory, that a thread has touched without a fence") {
  check_named("write/read", "arrivals_init", kMadeLine, "copy_box", kFirstCopyLine, sums_of_boxes_of<Unfenced::made>);
  check_named("write/write", "st16", kWrittenLine, "copy_box", kFirstCopyLine, sums_of_boxes_of<Unfenced::written>);
  check_named("read/write", "ld16", kReadLine, "copy_box", kFirstCopyLine, sums_of_boxes_of<Unfenced::read>);
}
#endif

}  // namespace
}  // namespace nanovlm::testing
