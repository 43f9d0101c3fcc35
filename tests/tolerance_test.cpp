// The rule by which kernels are judged.
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST_CASE("a kernel may be off by twice what its formula is, and a few ulp") {
  CHECK(closeness({1.2}, {1.0}, {1.1}).close());
  CHECK_FALSE(closeness({1.3}, {1.0}, {1.1}).close());
  CHECK(closeness({1 + 0x1p-22}, {1.0}, {1.0}).close());
  CHECK_FALSE(closeness({1 + 0x1p-20}, {1.0}, {1.0}).close());
  CHECK(closeness({1 + 0x1p-20}, {1.0}, {1.0}, 8).close());
}

TEST_CASE("numbers that are not finite are close to themselves only") {
  CHECK(closeness({kInfinity, NAN}, {kInfinity, NAN}, {kInfinity, NAN}).close());
  CHECK_FALSE(closeness({1.0}, {NAN}, {NAN}).close());
  CHECK_FALSE(closeness({NAN}, {1.0}, {1.0}).close());
  // Where the formula fails, nothing is known of the kernel.
  CHECK_FALSE(closeness({1.0}, {1.0}, {NAN}).close());
  CHECK_FALSE(closeness({5.0}, {1.0}, {kInfinity}).close());
}

}  // namespace
}  // namespace nanovlm::testing
