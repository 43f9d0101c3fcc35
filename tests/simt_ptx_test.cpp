// The host twins of the PTX wrappers against the tables of the PTX ISA manual, written down here once more from the
// manual; and against what a GPU gave, once tools/record_golden has been run on one.
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/simt_kernels/golden.cuh"
#include "tests/support/simt_runs.h"

namespace nanovlm::testing {
namespace {

using kernels::launch;
using Words = std::vector<uint32_t>;

Words run(const kernels::GoldenCase& c, const Words& input) {
  return same_in_all_runs([&](simt::Executor& executor) {
    SimtArray<uint32_t> in(executor, input), out(executor, static_cast<size_t>(32 * c.words_out));
    launch(c.name, c.kernel, {1, 32, 0, executor.stream()}, in.data(), out.data());
    return out.values();
  });
}

kernels::GoldenCase case_of(const std::string& name) {
  for (const kernels::GoldenCase& c : kernels::golden_cases())
    if (name == c.name) return c;
  FAIL("no case " << name);
  return {};
}

float value(uint32_t bits) { return std::bit_cast<float>(bits); }
uint32_t bits(float x) { return std::bit_cast<uint32_t>(x); }
float bf16_value(uint32_t pair, int half) { return value(half ? pair & 0xffff0000u : pair << 16); }

TEST_CASE("twin: mma.m16n8k16 holds its fragments as the manual's formulas say") {
  const kernels::GoldenCase c = case_of("mma_m16n8k16");
  const Words in = kernels::golden_input(c), out = run(c, in);

  // "Matrix Fragments for mma.m16n8k16 with floating point type": groupID = laneid >> 2, threadID_in_group = laneid
  // % 4.
  double A[16][16], B[16][8], C[16][8], D[16][8], magnitude[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane >> 2, thread = lane % 4;
    const uint32_t* mine = &in[static_cast<size_t>(10 * lane)];
    for (int i = 0; i < 8; ++i) {
      const int row = (0 <= i && i < 2) || (4 <= i && i < 6) ? group : group + 8;
      const int column = i < 4 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8;
      A[row][column] = bf16_value(mine[i / 2], i % 2);
    }
    for (int i = 0; i < 4; ++i) {
      const int row = i < 2 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8;
      B[row][group] = bf16_value(mine[4 + i / 2], i % 2);
    }
    for (int i = 0; i < 4; ++i) {
      const int row = i < 2 ? group : group + 8, column = thread * 2 + (i & 1);
      C[row][column] = value(mine[6 + i]);
      D[row][column] = value(out[static_cast<size_t>(4 * lane + i)]);
    }
  }
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 8; ++n) {
      double exact = C[m][n];
      magnitude[m][n] = std::fabs(exact);
      for (int k = 0; k < 16; ++k) exact += A[m][k] * B[k][n], magnitude[m][n] += std::fabs(A[m][k] * B[k][n]);
      CHECK(std::fabs(D[m][n] - exact) <= 16 * 6e-8 * magnitude[m][n]);
    }
}

TEST_CASE("twin: ldmatrix gives lane l the elements 2(l%4) and 2(l%4)+1 of row l/4 of each matrix") {
  for (const char* name : {"ldmatrix_x4", "ldmatrix_x4_trans", "ldmatrix_x2", "ldmatrix_x2_trans"}) {
    CAPTURE(name);
    const kernels::GoldenCase c = case_of(name);
    Words in(128);
    for (uint32_t i = 0; i < 128; ++i) in[i] = (2 * i + 1) << 16 | 2 * i;  // element e of the tile is e
    const Words out = run(c, in);
    const bool transposed = std::strstr(name, "trans") != nullptr;
    for (uint32_t lane = 0; lane < 32; ++lane)
      for (uint32_t matrix = 0; matrix < static_cast<uint32_t>(c.words_out); ++matrix)
        for (uint32_t half = 0; half < 2; ++half) {
          uint32_t row = lane / 4, column = 2 * (lane % 4) + half;
          if (transposed) std::swap(row, column);
          const uint32_t word = out[lane * static_cast<uint32_t>(c.words_out) + matrix];
          CHECK((half ? word >> 16 : word & 0xffff) == 64 * matrix + 8 * row + column);
        }
  }
}

TEST_CASE("twin: shuffles follow the manual's shfl.sync") {
  for (int width : {32, 8}) {
    CAPTURE(width);
    const kernels::GoldenCase c = case_of("shuffle_" + std::to_string(width));
    const Words in = kernels::golden_input(c), out = run(c, in);
    const auto value_of = [&](int lane) { return in[static_cast<size_t>(2 * lane)]; };
    for (int lane = 0; lane < 32; ++lane) {
      // "shfl.sync": the lane mask of CUDA's width is 32 - width, the clamp 0 for .up and 31 for the others.
      const int b = static_cast<int>(in[static_cast<size_t>(2 * lane + 1)] % 32), segment = 32 - width;
      const int max_lane = (lane & segment) | (31 & ~segment), min_lane = lane & segment;
      const int source[] = {min_lane | (b & ~segment), lane - b, lane + b, lane ^ b};
      const bool taken[] = {source[0] <= max_lane, source[1] >= min_lane, source[2] <= max_lane, source[3] <= max_lane};
      for (int kind = 0; kind < 4; ++kind) {
        CAPTURE(lane, kind, b);
        CHECK(out[static_cast<size_t>(6 * lane + kind)] == value_of(taken[kind] ? source[kind] : lane));
      }
      uint32_t votes = 0, any = 0, all = 1;
      for (int other = 0; other < 32; ++other) {
        votes |= (value_of(other) & 1) << other;
        any |= value_of(other) == 0;
        all &= value_of(other) != 0;
      }
      CHECK(out[static_cast<size_t>(6 * lane + 4)] == votes);
      CHECK(out[static_cast<size_t>(6 * lane + 5)] == any * 2 + all);
    }
  }
}

TEST_CASE("twin: cp.async fills what lies beyond its source size with zeros") {
  const kernels::GoldenCase c = case_of("cp_async16");
  const Words in = kernels::golden_input(c), out = run(c, in);
  const uint8_t *from = reinterpret_cast<const uint8_t*>(in.data()), *to = reinterpret_cast<const uint8_t*>(out.data());
  for (int lane = 0; lane < 32; ++lane)
    for (int byte = 0; byte < 16; ++byte)
      CHECK(to[16 * lane + byte] == (byte < lane % 17 ? from[16 * lane + byte] : 0));
}

TEST_CASE("twin: vector loads and stores move every byte") {
  const kernels::GoldenCase c = case_of("ld16_st16_ld8_st8");
  const Words in = kernels::golden_input(c);
  CHECK(run(c, in) == in);
}

TEST_CASE("twin: conversions to bf16 round to nearest even, NaN becomes the canonical one") {
  const auto rounded = [](float x) {
    Words in(64, bits(x));
    return run(case_of("bf16"), in)[0];
  };
  CHECK(rounded(1.0f) == 0x3f80);
  CHECK(rounded(value(0x3f808000)) == 0x3f80);  // a tie goes to the even neighbour
  CHECK(rounded(value(0x3f818000)) == 0x3f82);
  CHECK(rounded(value(0x3f808001)) == 0x3f81);
  CHECK(rounded(value(0x7f7fffff)) == 0x7f80);  // the largest float rounds to infinity
  CHECK(rounded(-INFINITY) == 0xff80);
  CHECK(rounded(value(0x00000001)) == 0x0000);
  CHECK(rounded(value(0x807fffff)) == 0x8080);  // subnormals round like any other
  CHECK(rounded(NAN) == 0x7fff);

  Words in(64);
  for (size_t i = 0; i < 64; ++i) in[i] = bits(static_cast<float>(i));
  const Words out = run(case_of("bf16"), in);
  for (size_t lane = 0; lane < 32; ++lane) {
    CHECK(out[4 * lane + 1] == (bits(static_cast<float>(2 * lane + 1)) | bits(static_cast<float>(2 * lane)) >> 16));
    CHECK(value(out[4 * lane + 2]) == static_cast<float>(2 * lane));  // low half: the first argument
    CHECK(value(out[4 * lane + 3]) == static_cast<float>(2 * lane + 1));
  }
}

TEST_CASE("twin: ex2 flushes subnormals and knows the special values") {
  CHECK(kernels::ex2(-INFINITY) == 0.0f);
  CHECK(kernels::ex2(INFINITY) == INFINITY);
  CHECK(std::isnan(kernels::ex2(NAN)));
  CHECK(kernels::ex2(0.0f) == 1.0f);
  CHECK(kernels::ex2(value(0x00000001)) == 1.0f);
  CHECK(kernels::ex2(-126.0f) == value(0x00800000));
  CHECK(kernels::ex2(-127.0f) == 0.0f);  // 2^-127 is subnormal
  CHECK(kernels::ex2(128.0f) == INFINITY);
  for (float x : {-20.3f, -0.7f, 0.1f, 3.9f, 100.5f})
    CHECK(kernels::ex2(x) == Approx(std::exp2(double(x))).epsilon(3e-7));
}

__global__ void two_groups(const float* x, float* y) {
  using namespace kernels;
  GPU_SHARED(float, tile, [8]);
  tile[0] = tile[4] = -1;
  cp_async16(&tile[0], x);
  cp_async_commit();
  cp_async16(&tile[4], x + 4);
  cp_async_commit();
  cp_async_wait<1>();
  y[0] = tile[0];
#if !defined(NANOVLM_SIMT_INSTRUMENTED)  // reading it there is an error
  y[1] = tile[4];
#endif
  cp_async_wait<0>();
  y[2] = tile[4];
}

TEST_CASE("twin: cp.async.wait_group leaves the newest groups under way") {
  for (const simt::Copies copies : {simt::Copies::early, simt::Copies::late}) {
    simt::Executor executor({.copies = copies});
    SimtArray<float> x(executor, std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8}), y(executor, std::vector<float>(3));
    launch("two_groups", two_groups, {1, 1, 0, executor.stream()}, x.data(), y.data());
    CHECK(y.values()[0] == 1);
#if !defined(NANOVLM_SIMT_INSTRUMENTED)
    CHECK(y.values()[1] == (copies == simt::Copies::early ? 5 : -1));
#endif
    CHECK(y.values()[2] == 5);
  }
}

// One fp32 result of the hardware and of the twin. Tensor cores add in their own order and truncate.
bool close(uint32_t a, uint32_t b, float tolerance) {
  const float x = value(a), y = value(b);
  if (std::isnan(x) || std::isnan(y)) return std::isnan(x) && std::isnan(y);
  return x == y || std::fabs(x - y) <= tolerance * std::fmax(1.0f, std::fabs(x));
}

TEST_CASE("twins give what a GPU gave") {
  const std::filesystem::path path = std::filesystem::path(NANOVLM_FIXTURES) / "ptx" / "golden.json";
  if (!std::filesystem::exists(path)) {
    WARN("no recording of a GPU: run tools/record_golden on one and commit tests/fixtures/ptx/golden.json");
    return;
  }
  const nlohmann::json recorded = nlohmann::json::parse(std::ifstream(path));
  for (const kernels::GoldenCase& c : kernels::golden_cases()) {
    CAPTURE(c.name);
    const nlohmann::json& words = recorded.at("cases").at(c.name);
    const Words in = words.at("in"), gpu = words.at("out"), host = run(c, in);
    REQUIRE(gpu.size() == host.size());
    for (size_t i = 0; i < gpu.size(); ++i) {
      CAPTURE(i, gpu[i], host[i]);
      CHECK((gpu[i] == host[i] || (!c.exact && close(gpu[i], host[i], 4e-6f))));
    }
  }
}

}  // namespace
}  // namespace nanovlm::testing
