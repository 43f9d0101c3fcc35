#include "kernels/softmax/softmax.h"

#include "tests/support/backends.h"
#include "tests/support/reference.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

// Rows of less than a quad, of quads and a rest, of more quads than a warp has lanes; queries that end in mid-sequence.
struct Shape {
  int64_t R, T;
};
constexpr Shape kShapes[] = {{1, 1}, {5, 3}, {9, 33}, {11, 128}, {3, 201}};
constexpr double kScale = 0.3;

TEST_CASE("softmax is as exact as the plain formula") {
  for_each_backend([](auto backend, Stream stream) {
    for (const Shape& shape : kShapes)
      for (DType in : kFloatDTypes)
        for (DType out : kFloatDTypes)
          for (bool causal : {false, true}) {
            const int64_t R = shape.R, T = shape.T;
            CAPTURE(R, T, name_of(in), name_of(out), causal);
            Random random(R * T);
            Buffer s = random.normal(R * T, in, 10), p(R * T, out);
            kernels::softmax(backend, kernels::Softmax{s, p, R, T, kScale, causal, in, out}, stream);
            check_close("p", p.values(), reference::softmax<double>(s.values(), T, kScale, causal, out),
                        reference::softmax<float>(s.values(), T, kScale, causal, out));
            if (in != out) continue;
            kernels::softmax(backend, kernels::Softmax{s, s, R, T, kScale, causal, in, out}, stream);
            CHECK(s.same_bits(p));
          }
  });
}

TEST_CASE("softmax's gradient is as exact as the plain formula") {
  for_each_backend([](auto backend, Stream stream) {
    for (const Shape& shape : kShapes)
      for (DType dtype : kFloatDTypes) {
        const int64_t R = shape.R, T = shape.T;
        CAPTURE(R, T, name_of(dtype));
        Random random(R * T);
        Buffer p(reference::softmax<float>(random.normal(R * T, dtype).values(), T, 1, true, dtype), dtype);
        Buffer dp = random.normal(R * T, dtype), ds(R * T, dtype);
        kernels::softmax_backward(backend, kernels::SoftmaxBackward{p, dp, ds, R, T, kScale, dtype}, stream);
        check_close("ds", ds.values(), reference::softmax_backward<double>(p.values(), dp.values(), T, kScale, dtype),
                    reference::softmax_backward<float>(p.values(), dp.values(), T, kScale, dtype));
        kernels::softmax_backward(backend, kernels::SoftmaxBackward{p, dp, dp, R, T, kScale, dtype}, stream);
        CHECK(dp.same_bits(ds));
      }
  });
}

TEST_CASE("softmax of scores far apart, and far from 0") {
  for_each_backend([](auto backend, Stream stream) {
    Buffer s(Values{1e6, -1e6, 1e6, -3e38, -3e38, -3e38}, DType::f32), p(6, DType::f32);
    kernels::softmax(backend, kernels::Softmax{s, p, 2, 3, 1, false, DType::f32, DType::f32}, stream);
    const Values expected{0.5, 0, 0.5, 1.0 / 3, 1.0 / 3, 1.0 / 3};
    check_close("p", p.values(), expected, expected);
  });
}

TEST_CASE("softmax's reference gradient is the slope of its output") {
  const int64_t T = 7;
  Random random(1);
  const Values s = random.normal(3 * T, DType::f32).values(), upstream = random.normal(3 * T, DType::f32).values();
  const auto value = [&](const Values& at) {
    return dot(upstream, reference::softmax<double>(at, T, kScale, true, DType::f32));
  };
  check_slope("ds", value, s,
              reference::softmax_backward<double>(reference::softmax<double>(s, T, kScale, true, DType::f32), upstream,
                                                  T, kScale, DType::f32));
}

}  // namespace
}  // namespace nanovlm::testing
