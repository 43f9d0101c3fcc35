// The kernel of docs/add-a-kernel.md, as it stands there: it does what the guide says of it, with and without its first
// barrier.
#include "guide/mine.cuh"
#include "guide/racy.cuh"
#include "tests/support/attention_cases.h"
#include "tests/support/simt_runs.h"

namespace nanovlm::testing {
namespace {

constexpr int kRows = std::min(kMostRows, 100);  // at most: each case runs in every order

TEST_CASE("the guide's kernel is as exact as the plain formula") {
  const auto check_case = [](Operands& x) {
    const auto exact = reference::attention<double>(x.setting, x.q, x.k, x.v, x.dtype);
    const auto plain = reference::attention<float>(x.setting, x.q, x.k, x.v, x.dtype);
    for (const simt::Options& options : simt_runs()) {
      INFO(name_of(options));
      simt::Executor executor(options);
      const Forward got =
          forward_by([&](const kernels::Attention& a) { kernels::launch_mine(a, executor.stream()); }, x);
      check_close("o", got.o.values(), exact.o, plain.o);
      check_close("lse", got.lse.values(), exact.lse, plain.lse);
    }
  };
  for_each_case(check_case, kRows);
}

#if defined(NANOVLM_SIMT_INSTRUMENTED)
TEST_CASE("without its first barrier the guide's kernel is a race") {
  Operands x({{40}, 3, 1, 64, true, true}, DType::bf16, Random(1));
  simt::Executor executor;
  CHECK_THROWS_WITH(forward_by([&](const kernels::Attention& a) { kernels::launch_racy(a, executor.stream()); }, x),
                    contains("attention_racy: block (0,0,0)") && contains("race, ") && contains("shared memory") &&
                        contains("racy.cuh:"));
}
#endif

}  // namespace
}  // namespace nanovlm::testing
