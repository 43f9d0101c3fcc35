#include "kernels/gelu/gelu.h"

#include "tests/support/backends.h"
#include "tests/support/fixture.h"
#include "tests/support/reference.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

constexpr int64_t kSizes[] = {1, 31, 33, 576, 1001};

struct Outputs {
  Buffer y, dx;
};

template <class Backend>
Outputs run(Backend backend, Stream stream, Buffer x, Buffer dy, bool in_place = false) {
  const int64_t n = x.values().size();
  const DType dtype = x.dtype();
  Outputs out{in_place ? x : Buffer(n, dtype), in_place ? dy : Buffer(n, dtype)};
  kernels::gelu_backward(backend, kernels::GeluBackward{x, in_place ? out.dx : dy, out.dx, n, dtype}, stream);
  kernels::gelu(backend, kernels::Gelu{in_place ? out.y : x, out.y, n, dtype}, stream);
  return out;
}

void check_same_bits(const Outputs& a, const Outputs& b) {
  CHECK(a.y.same_bits(b.y));
  CHECK(a.dx.same_bits(b.dx));
}

void check_outputs(const Outputs& out, const Buffer& x, const Buffer& dy) {
  const Values at = x.values(), d = dy.values();
  const DType dtype = x.dtype();
  check_close("y", out.y.values(), reference::gelu<double>(at, dtype), reference::gelu<float>(at, dtype));
  check_close("dx", out.dx.values(), reference::gelu_backward<double>(at, d, dtype),
              reference::gelu_backward<float>(at, d, dtype));
}

TEST_CASE("gelu and its gradient are as exact as the plain formula") {
  for_each_backend([](auto backend, Stream stream) {
    for (DType dtype : kFloatDTypes)
      for (int64_t n : kSizes)
        for (double deviation : {0.01, 1.0, 10.0}) {
          CAPTURE(name_of(dtype), n, deviation);
          Random random(n);
          const Buffer x = random.normal(n, dtype, deviation), dy = random.normal(n, dtype);
          const Outputs out = run(backend, stream, x, dy);
          check_outputs(out, x, dy);
          check_same_bits(out, run(backend, stream, x, dy));
          check_same_bits(out, run(backend, stream, x, dy, true));  // y over x, dx over dy
        }
  });
}

TEST_CASE("gelu gives the same bits on one thread and on two") {
  for_each_backend([](auto backend) {
    for (DType dtype : kFloatDTypes) {
      Random random(1);
      const Buffer x = random.normal(50001, dtype), dy = random.normal(50001, dtype);
      with_threads(1, [&] {
        const Outputs one = run(backend, {}, x, dy);
        with_threads(2, [&] { check_same_bits(one, run(backend, {}, x, dy)); });
      });
    }
  });
}

TEST_CASE("gelu far from 0") {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for_each_backend([&](auto backend, Stream stream) {
    const Values x = repeated({1e10, 100, -100, -1e10, NAN}, 20), dy(x.size(), 1.0);
    const Outputs out = run(backend, stream, Buffer(x, DType::f32), Buffer(dy, DType::f32));
    CHECK(max_error(out.y.values(), repeated({1e10, 100, 0, 0, NAN}, 20)) == 0);
    CHECK(max_error(out.dx.values(), repeated({1, 1, 0, 0, NAN}, 20)) == 0);
    CHECK(run(backend, stream, Buffer(Values{kInfinity}, DType::f32), Buffer(Values{1}, DType::f32)).y.values()[0] ==
          kInfinity);
  });
}

TEST_CASE("gelu's reference gradient is the slope of its output") {
  Random random(3);
  const Values x = random.normal(50, DType::f32, 2).values(), dy = random.normal(50, DType::f32).values();
  check_slope(
      "dx", [&](const Values& at) { return dot(dy, reference::gelu<double>(at, DType::f32)); }, x,
      reference::gelu_backward<double>(x, dy, DType::f32));
}

TEST_CASE("gelu agrees with PyTorch, which passes the same rule") {
  const OpFixture fixture("gelu_tanh");
  for (int k = 0; k < 3; ++k) {
    CAPTURE(k);
    const Buffer x(fixture(k, "in.x"), DType::f32), dy(fixture(k, "upstream"), DType::f32);
    check_outputs({Buffer(fixture(k, "out"), DType::f32), Buffer(fixture(k, "grad.x"), DType::f32)}, x, dy);
    for_each_backend([&](auto backend, Stream stream) { check_outputs(run(backend, stream, x, dy), x, dy); });
  }
}

}  // namespace
}  // namespace nanovlm::testing
