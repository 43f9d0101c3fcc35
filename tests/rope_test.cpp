#include "kernels/rope/rope.h"

#include "tests/support/attention_reference.h"
#include "tests/support/backends.h"
#include "tests/support/fixture.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
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
        Buffer cos = random.normal(places * c.D / 2, DType::f32), sin = random.normal(places * c.D / 2, DType::f32);
        const auto formula = [&]<class Real>(Real) {
          return reference::rope<Real>(x.values(), cos.values(), sin.values(), integers(positions.values()), c.H, c.D,
                                       inverse, dtype);
        };
        const Values exact = formula(0.0), plain = formula(0.0f);

        const auto rope = [&](auto backend, Stream stream, Buffer& from, Buffer& to) {
          kernels::rope(backend, kernels::Rope{from, to, cos, sin, positions, c.R, c.H, c.D, inverse, dtype}, stream);
        };
        for_each_backend([&](auto backend, Stream stream) {
          Buffer y(c.R * c.H * c.D, dtype), in_place = x;
          rope(backend, stream, x, y);
          check_close("y", y.values(), exact, plain);
          rope(backend, stream, in_place, in_place);
          CHECK(in_place.same_bits(y));
        });
        for_each_backend([&](auto backend) {
          Buffer y(c.R * c.H * c.D, dtype), again = y;
          rope(backend, {}, x, y);
          with_threads(1, [&] { rope(backend, {}, x, again); });
          CHECK(again.same_bits(y));
        });
      }
}

TEST_CASE("the inverse of rope is its gradient") {
  Random random(3);
  const int H = 2, D = 6;
  const std::vector<int32_t> positions{4, 0, 2};
  const int64_t n = positions.size() * H * D;
  const Values x = random.normal(n, DType::f32).values(), dy = random.normal(n, DType::f32).values();
  const Values cos = random.normal(5 * D / 2, DType::f32).values(), sin = random.normal(5 * D / 2, DType::f32).values();
  const auto rope = [&](const Values& x, bool inverse) {
    return reference::rope<double>(x, cos, sin, positions, H, D, inverse, DType::f32);
  };
  check_slope(
      "dx", [&](const Values& x) { return dot(rope(x, false), dy); }, x, rope(dy, true));
}

// q and k of PyTorch's results: [B, heads, T, D] there, rows of heads here; its output holds q's heads, then k's.
TEST_CASE("rope agrees with PyTorch, which passes the same rule") {
  const OpFixture fixture("rope");
  for (int k = 0; k < 4; ++k)
    for (const bool keys : {false, true}) {
      const Shape q = fixture.shape(k, "in.q"), shape = fixture.shape(k, keys ? "in.k" : "in.q");
      const int64_t B = shape[0], heads = shape[1], T = shape[2], D = shape[3];
      const int64_t all = fixture.shape(k, "out")[1], first = keys ? q[1] : 0;
      CAPTURE(k, keys);
      // Head h of a tensor with `of` heads, from its head `from` on
      const auto rows = [&](const std::string& name, int64_t of, int64_t from) {
        const Values x = fixture(k, name);
        Values y(B * T * heads * D);
        for (int64_t i = 0; i < int64_t(y.size()); ++i) {
          const int64_t d = i % D, h = i / D % heads, t = i / D / heads % T, b = i / D / heads / T;
          y[i] = x[((b * of + from + h) * T + t) * D + d];
        }
        return y;
      };
      // [B, T, D] there, with every angle in both halves of a row.
      const auto angles = [&](const char* name) {
        const Values x = fixture(k, name);
        Values half;
        for (size_t i = 0; i < x.size(); ++i) {
          if (int64_t(i) % D < D / 2)
            half.push_back(x[i]);
          else
            REQUIRE(x[i] == x[i - D / 2]);
        }
        return half;
      };
      const Values cos_values = angles("const.cos"), sin_values = angles("const.sin");
      std::vector<int32_t> positions(B * T);
      for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<int32_t>(i);
      Buffer cos(cos_values, DType::f32), sin(sin_values, DType::f32);
      Buffer at(Values(positions.begin(), positions.end()), DType::i32);

      for (const bool inverse : {false, true}) {
        const Values x = inverse ? rows("upstream", all, first) : rows(keys ? "in.k" : "in.q", heads, 0);
        const Values theirs = inverse ? rows(keys ? "grad.k" : "grad.q", heads, 0) : rows("out", all, first);
        const auto formula = [&]<class Real>(Real) {
          return reference::rope<Real>(x, cos_values, sin_values, positions, heads, D, inverse, DType::f32);
        };
        const Values exact = formula(0.0), plain = formula(0.0f);
        check_close("PyTorch's y", theirs, exact, plain);
        for_each_backend([&](auto backend, Stream stream) {
          Buffer from(x, DType::f32), y(x.size(), DType::f32);
          kernels::rope(backend, kernels::Rope{from, y, cos, sin, at, B * T, int(heads), int(D), inverse, DType::f32},
                        stream);
          check_close("y", y.values(), exact, plain);
        });
      }
    }
}

}  // namespace
}  // namespace nanovlm::testing
