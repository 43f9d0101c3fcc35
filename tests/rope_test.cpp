#include "kernels/rope/rope.h"

#include "tests/support/attention_reference.h"
#include "tests/support/backends.h"

using namespace nanovlm;
using namespace nanovlm::testing;

namespace {

struct Case {
  int64_t R;
  int H, D;
};

constexpr Case kCases[] = {{1, 1, 2}, {3, 2, 8}, {33, 9, 64}, {65, 3, 30}, {700, 3, 64}};

std::vector<int32_t> integers(const Values& values) { return {values.begin(), values.end()}; }

TEST_CASE("rope is as exact as the plain formula, in both directions and in place") {
  for (const Case& c : kCases)
    for (DType dtype : kFloatDTypes)
      for (bool inverse : {false, true}) {
        INFO("R " << c.R << ", H " << c.H << ", D " << c.D << ", " << name_of(dtype) << ", inverse " << inverse);
        Random random(c.R);
        const int64_t places = c.R + 7;
        Buffer x = random.normal(c.R * c.H * c.D, dtype), positions = random.integers(c.R, places);
        Buffer cos = random.normal(places * c.D, DType::f32), sin = random.normal(places * c.D, DType::f32);
        const auto formula = [&]<class Real>(Real) {
          return reference::rope<Real>(x.values(), cos.values(), sin.values(), integers(positions.values()), c.H, c.D,
                                       inverse, dtype);
        };
        const Values exact = formula(0.0), plain = formula(0.0f);

        for_each_backend([&](auto backend) {
          const auto rope = [&](Buffer& from, Buffer& to) {
            kernels::rope(backend, {from, to, cos, sin, positions, c.R, c.H, c.D, inverse, dtype}, Stream{});
          };
          Buffer y(c.R * c.H * c.D, dtype), in_place = x;
          rope(x, y);
          check_close("y", y.values(), exact, plain);
          rope(in_place, in_place);
          CHECK(in_place.same_bits(y));
          with_threads(1, [&] {
            Buffer again(c.R * c.H * c.D, dtype);
            rope(x, again);
            CHECK(again.same_bits(y));
          });
        });
      }
}

TEST_CASE("the inverse of rope is its gradient") {
  Random random(3);
  const int H = 2, D = 6;
  const std::vector<int32_t> positions{4, 0, 2};
  const int64_t n = positions.size() * H * D;
  const Values x = random.normal(n, DType::f32).values(), dy = random.normal(n, DType::f32).values();
  const Values cos = random.normal(5 * D, DType::f32).values(), sin = random.normal(5 * D, DType::f32).values();
  const auto rope = [&](const Values& x, bool inverse) {
    return reference::rope<double>(x, cos, sin, positions, H, D, inverse, DType::f32);
  };
  check_slope(
      "dx", [&](const Values& x) { return dot(rope(x, false), dy); }, x, rope(dy, true));
}

}  // namespace
