// Correct kernels give the right result and the same bits in whatever order their threads run.
#include "kernels/simt/executor.h"

#include <cmath>
#include <vector>

#include "tests/simt_kernels/sound.cuh"
#include "tests/support/simt_runs.h"

namespace nanovlm::testing {
namespace {

using kernels::launch;

std::vector<float> numbers(size_t n) {
  std::vector<float> x(n);
  uint32_t state = 12345;
  for (float& value : x) {
    state = state * 1664525 + 1013904223;
    value = static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
  }
  return x;
}

TEST_CASE("simt: a block's sum") {
  for (int C : {1, 31, 33, 576, 1000})
    for (int threads : {32, 96, 1024}) {
      CAPTURE(C, threads);
      const std::vector<float> x = numbers(static_cast<size_t>(5 * C));
      const std::vector<float> sums = same_in_all_runs([&](simt::Executor& executor) {
        SimtArray<float> in(executor, x), out(executor, 5);
        launch("row_sums", kernels::row_sums, {5, threads, 0, executor.stream()}, in.data(), out.data(), C);
        return out.values();
      });
      for (int r = 0; r < 5; ++r) {
        double exact = 0, magnitude = 0;
        for (int c = 0; c < C; ++c) exact += x[r * C + c], magnitude += std::fabs(x[r * C + c]);
        CHECK(std::fabs(sums[r] - exact) <= 1e-6 * magnitude);
      }
    }
}

TEST_CASE("simt: a double-buffered cp.async pipeline") {
  for (int tiles : {1, 2, 3, 5}) {
    CAPTURE(tiles);
    const std::vector<float> x = numbers(static_cast<size_t>(tiles * kernels::kTileFloats));
    const std::vector<float> y = same_in_all_runs([&](simt::Executor& executor) {
      SimtArray<float> in(executor, x), out(executor, kernels::kTileFloats);
      launch("reversed_tile_sums", kernels::reversed_tile_sums, {1, 32, 0, executor.stream()}, in.data(), out.data(),
             tiles);
      return out.values();
    });
    for (int i = 0; i < kernels::kTileFloats; ++i) {
      float exact = 0;
      for (int tile = 0; tile < tiles; ++tile) exact += x[tile * kernels::kTileFloats + kernels::kTileFloats - 1 - i];
      REQUIRE(y[i] == exact);
    }
  }
}

TEST_CASE("simt: a tensor-core product") {
  const int M = 64, N = 96, K = 80;
  std::vector<bf16> a, b;
  for (float v : numbers(static_cast<size_t>(M * K))) a.push_back(bf16(v));
  for (float v : numbers(static_cast<size_t>(K * N))) b.push_back(bf16(v));
  const std::vector<float> c = same_in_all_runs([&](simt::Executor& executor) {
    SimtArray<bf16> a_in(executor, a), b_in(executor, b);
    SimtArray<float> out(executor, static_cast<size_t>(M * N));
    launch("gemm", kernels::gemm, {{N / 32, M / 32}, 128, 0, executor.stream()}, a_in.data(), b_in.data(), out.data(),
           N, K);
    CHECK(executor.reports().at(0).mma_flops == int64_t{2} * M * N * K);
    return out.values();
  });
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) {
      double exact = 0;
      for (int k = 0; k < K; ++k) exact += double(float(a[m * K + k])) * double(float(b[k * N + n]));
      REQUIRE(c[m * N + n] == Approx(exact).margin(1e-5));
    }
}

TEST_CASE("simt: atomics between blocks") {
  std::vector<int> x(1000);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<int>(i * i % 7);
  const std::vector<int> counts = same_in_all_runs([&](simt::Executor& executor) {
    SimtArray<int> in(executor, x), out(executor, std::vector<int>(7));
    launch("histogram", kernels::histogram, {8, 128, 0, executor.stream()}, in.data(), out.data(), 1000);
    return out.values();
  });
  std::vector<int> exact(7);
  for (int v : x) ++exact[static_cast<size_t>(v)];
  CHECK(counts == exact);
}

}  // namespace
}  // namespace nanovlm::testing
