// The choice among an operation's kernels, from its name to the launch.
#include "kernels/variants.h"

#include "engine/ops.h"
#include "engine/random.h"
#include "tests/support/catch.h"
#include "tests/support/messages.h"
#if defined(NANOVLM_SIMT_KERNELS)
#include "kernels/simt/executor.h"
#endif

namespace nanovlm::testing {
namespace {

TEST_CASE("a kernel is chosen by name, and an unknown name is refused with the list") {
  kernels::KernelChoices choices;
  CHECK(choices.of("attention") == nullptr);
  choices.choose("attention=fma");
  CHECK(choices.of("attention") == std::string("fma"));
  CHECK(choices.of("attention_backward") == nullptr);
  choices.choose("attention=mma");
  CHECK(choices.of("attention") == std::string("mma"));
  for (const std::string& all : kernels::KernelChoices::all()) CHECK_NOTHROW(choices.choose(all));
  for (const char* unknown : {"attention=", "attention", "=fma", "", "attention=quick", "atten=fma", "attention=fma "})
    CHECK_THROWS_WITH(choices.choose(unknown),
                      Catch::Matchers::StartsWith(std::string("kernel: \"") + unknown + "\" is unknown") &&
                          contains("attention_backward=whole"));
}

TEST_CASE("the cpu device has no choice of kernels") {
  CHECK(message_of([] { Device::open("cpu", {"attention=fma"}); }) ==
        "kernel: attention=fma: the cpu device has one kernel an operation");
}

#if defined(NANOVLM_SIMT_KERNELS)
// The kernels that one attention of bf16 launches, and its gradient.
std::vector<std::string> launched(const std::vector<std::string>& choices) {
  const Device device = Device::open("simt", choices);
  Random random(1);
  Tensor qkv = cast(random_normal({20, 3 * 32}, 1, random, device), DType::bf16);
  qkv.set_requires_grad();
  device.context().executor->clear_reports();
  const Tensor o =
      attention(qkv, {1, 1, 32}, {from_host(std::vector<int32_t>{0, 20}, {2}, device), 20, {}, {}}, {}, true);
  const Tensor head = random_normal({4, 32}, 1, random, device);
  backward(linear_cross_entropy(o, head, std::vector<int32_t>(20, 1), DType::bf16));
  std::vector<std::string> names;
  for (const simt::KernelReport& report : device.context().executor->reports())
    if (report.kernel.starts_with("attention")) names.push_back(report.kernel);
  return names;
}

TEST_CASE("the chosen kernel is what runs") {
  using Names = std::vector<std::string>;
  CHECK(launched({}) == Names{"attention_whole", "attention_backward_whole"});
  CHECK(launched({"attention=mma"}) == Names{"attention_mma", "attention_backward_whole"});
  CHECK(launched({"attention=fma"}) == Names{"attention", "attention_backward_whole"});
  CHECK(launched({"attention_backward=mma"}) == Names{"attention_whole", "attention_dq_mma", "attention_dkv_mma"});
  CHECK(launched({"attention_backward=fma_whole"}) == Names{"attention_whole", "attention_backward_fma_whole"});
  CHECK(launched({"attention=fma", "attention_backward=fma"}) == Names{"attention", "attention_dq", "attention_dkv"});
}
#endif

}  // namespace
}  // namespace nanovlm::testing
