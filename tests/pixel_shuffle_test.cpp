#include "kernels/pixel_shuffle/pixel_shuffle.h"

#include "tests/support/backends.h"
#include "tests/support/fixture.h"
#include "tests/support/reference.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

struct Case {
  int64_t B, C;
  int n, f;
};
constexpr Case kCases[] = {{1, 1, 1, 1}, {2, 31, 4, 2}, {1, 33, 6, 3}, {3, 7, 5, 5}, {2, 768, 14, 2}};

template <class Backend>
Buffer run(Backend backend, Stream stream, Buffer x, Case shape, bool inverse) {
  Buffer y(shape.B * shape.n * shape.n * shape.C, x.dtype());
  kernels::pixel_shuffle(backend, kernels::PixelShuffle{x, y, shape.B, shape.C, shape.n, shape.f, inverse, x.dtype()},
                         stream);
  return y;
}

TEST_CASE("pixel shuffle and its inverse move every entry to its place") {
  for_each_backend([](auto backend, Stream stream) {
    for (DType dtype : kFloatDTypes)
      for (Case shape : kCases)
        for (bool inverse : {false, true}) {
          CAPTURE(name_of(dtype), shape.B, shape.C, shape.n, shape.f, inverse);
          const Buffer x = Random(shape.C).normal(shape.B * shape.n * shape.n * shape.C, dtype);
          const Buffer y = run(backend, stream, x, shape, inverse);
          const Values expected = reference::pixel_shuffle(x.values(), shape.B, shape.C, shape.n, shape.f, inverse);
          CHECK(max_error(y.values(), expected) == 0);
          CHECK(run(backend, stream, y, shape, !inverse).same_bits(x));
          with_threads(1, [&] { CHECK(run(backend, stream, x, shape, inverse).same_bits(y)); });
        }
  });
}

TEST_CASE("pixel shuffle agrees with nanoVLM's") {
  const OpFixture fixture("pixel_shuffle");
  constexpr Case kSettings[] = {{2, 6, 4, 2}, {1, 3, 2, 2}, {1, 5, 14, 2}, {2, 4, 6, 3}};
  for (int k = 0; k < 4; ++k) {
    CAPTURE(k);
    const Buffer x(fixture(k, "in.x"), DType::f32), dy(fixture(k, "upstream"), DType::f32);
    for_each_backend([&](auto backend, Stream stream) {
      CHECK(max_error(run(backend, stream, x, kSettings[k], false).values(), fixture(k, "out")) == 0);
      CHECK(max_error(run(backend, stream, dy, kSettings[k], true).values(), fixture(k, "grad.x")) == 0);
    });
  }
}

}  // namespace
}  // namespace nanovlm::testing
