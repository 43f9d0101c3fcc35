#include "kernels/gemm/gemm.h"

#include "tests/support/buffer.h"
#include "tests/support/product_reference.h"
#include "tests/support/tolerance.h"
#if defined(NANOVLM_SIMT_KERNELS)
#include "tests/support/simt_runs.h"

namespace nanovlm::testing {
namespace {

// Whether what is multiplied is stored transposed, what is added to the product, and what is stored.
struct Case {
  int64_t M, N, K;
  bool transpose_a, transpose_b, bias = false, accumulate = false;
  DType out = DType::f32;
};

std::vector<bf16> rounded(const Values& values) {
  std::vector<bf16> result;
  for (const double value : values) result.emplace_back(static_cast<float>(value));
  return result;
}

struct Operands {
  Values a, b, bias, before;

  explicit Operands(const Case& s) {
    Random random(s.M * 10007 + s.N * 101 + s.K);
    a = random.normal(s.M * s.K, DType::bf16).values(), b = random.normal(s.K * s.N, DType::bf16).values();
    bias = random.normal(s.N, DType::f32).values(), before = random.normal(s.M * s.N, s.out).values();
  }

  template <class Real>
  Values product(const Case& s) const {
    return reference::product<Real>({s.M, s.N, s.K, s.transpose_a, s.transpose_b, s.out}, a, b,
                                    s.bias ? bias : Values{}, s.accumulate ? before : Values{});
  }
};

// What the kernel makes of the operands, which lie `shift` entries past a multiple of 16 bytes. Memory is the
// executor's: in the instrumented build its bounds are exact.
template <class T>
Values run(simt::Executor& executor, const Case& s, const Operands& o, int64_t shift) {
  const auto shifted = [&](const Values& values) {
    Values result(static_cast<size_t>(shift), 0.0);
    result.insert(result.end(), values.begin(), values.end());
    return result;
  };
  SimtArray<bf16> a(executor, rounded(shifted(o.a))), b(executor, rounded(shifted(o.b)));
  SimtArray<float> bias(executor, std::vector<float>(o.bias.begin(), o.bias.end()));
  SimtArray<T> c(executor, o.before.size());
  if (s.accumulate)
    for (size_t i = 0; i < o.before.size(); ++i) c.data()[i] = T(static_cast<float>(o.before[i]));
  kernels::gemm(Simt{},
                kernels::Matmul{a.data() + shift, b.data() + shift, c.data(), s.bias ? bias.data() : nullptr, s.M, s.N,
                                s.K, s.transpose_a, s.transpose_b, s.accumulate, DType::bf16, s.out},
                executor.stream());
  Values result;
  for (const T value : c.values()) result.push_back(static_cast<float>(value));
  return result;
}

Values run(simt::Executor& executor, const Case& s, const Operands& o, int64_t shift = 0) {
  return s.out == DType::f32 ? run<float>(executor, s, o, shift) : run<bf16>(executor, s, o, shift);
}

std::string name_of(const Case& s) {
  return std::to_string(s.M) + " x " + std::to_string(s.N) + " x " + std::to_string(s.K) +
         (s.transpose_a ? ", a^T " : ", a ") + (s.transpose_b ? "b^T" : "b") + (s.bias ? " + bias" : "") +
         (s.accumulate ? " + c" : "") + " -> " + nanovlm::name_of(s.out);
}

void check_case(const Case& s, int64_t shift = 0) {
  INFO(name_of(s));
  const Operands operands(s);
  const Values c = same_in_all_runs([&](simt::Executor& executor) { return run(executor, s, operands, shift); });
  check_close("c", c, operands.product<double>(s), operands.product<float>(s));
}

TEST_CASE("gemm of whole tiles, rows of whole chunks") {
  // 3 stages and 7: with fewer a fault of the pipeline is none yet. The products of a linear layer: y, dx, dweight.
  check_case({128, 128, 192, false, true, true, false, DType::bf16});
  check_case({64, 136, 448, false, false});
  check_case({136, 72, 256, true, false, false, true});
  check_case({40, 48, 200, true, true});
}

TEST_CASE("gemm of any size and alignment") {
  check_case({1, 1, 1, false, true});
  check_case({129, 33, 257, false, true, true});
  check_case({31, 131, 193, false, false, false, false, DType::bf16});
  check_case({130, 34, 195, true, false, true, true});
  check_case({33, 31, 130, true, true, true, false, DType::bf16});
  check_case({24, 40, 200, false, true}, 1);
}

TEST_CASE("gemm covers tiles in bands without leaving one out") { check_case({1153, 257, 8, false, true}); }

TEST_CASE("gemm over no terms is the bias, or leaves what was there") {
  check_case({3, 5, 0, false, true, true});
  check_case({3, 5, 0, true, false, false, true});
}

TEST_CASE("gemm names what it supports") {
  simt::Executor executor;
  const auto multiply = [&](DType in, DType out, bool accumulate) {
    kernels::gemm(Simt{},
                  kernels::Matmul{nullptr, nullptr, nullptr, nullptr, 1, 1, 1, false, true, accumulate, in, out},
                  executor.stream());
  };
  CHECK_THROWS_WITH(multiply(DType::f32, DType::f32, false),
                    Catch::Contains("operands are f32") && Catch::Contains("only bf16"));
  CHECK_THROWS_WITH(multiply(DType::bf16, DType::bf16, true), Catch::Contains("only f32"));
}

#if defined(NANOVLM_SIMT_INSTRUMENTED)
TEST_CASE("gemm asks for whole sectors and meets no bank conflicts") {
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true}) {
      const Case s{128, 128, 256, transpose_a, transpose_b, true, true};
      INFO(name_of(s));
      simt::Executor executor;
      run(executor, s, Operands(s));
      const simt::KernelReport report = executor.reports().at(0);
      CHECK(report.mma_flops == 2 * s.M * s.N * s.K);
      CHECK(report.sectors <= 1.01 * report.ideal_sectors);
      CHECK(report.wavefronts <= 1.01 * report.ideal_wavefronts);
    }
}
#endif

}  // namespace
}  // namespace nanovlm::testing
#endif
