#include <array>
#include <bit>
#include <cmath>

#include "kernels/adamw/coefficients.h"

#include "tests/support/backends.h"
#include "tests/support/fixture.h"
#include "tests/support/reference.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

using reference::AdamWSettings;
constexpr AdamWSettings kSettings{.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01};
constexpr int64_t kSizes[] = {1, 31, 33, 576, 1001};

struct State {
  Buffer p, m, v, copy;
};

State initial(const Values& p) {
  const int64_t n = p.size();
  return {Buffer(p, DType::f32), Buffer(Values(n), DType::f32), Buffer(Values(n), DType::f32), Buffer(n, DType::bf16)};
}

Buffer coefficients_of(int64_t t, const AdamWSettings& a) {
  const auto numbers = std::bit_cast<std::array<float, 8>>(
      kernels::adamw_coefficients({t, a.lr, a.beta1, a.beta2, a.eps, a.weight_decay}));
  return Buffer(Values(numbers.begin(), numbers.end()), DType::f32);
}

// One step. scale and only_if_finite are empty (null) or one number.
template <class Backend>
void run(Backend backend, Stream stream, State& state, Buffer g, Buffer scale, int64_t t, const AdamWSettings& a,
         Buffer only_if_finite = Buffer(0, DType::f32)) {
  const int64_t n = g.values().size();
  Buffer coefficients = coefficients_of(t, a);
  kernels::adamw(
      backend,
      kernels::AdamW{state.p, state.m, state.v, g, state.copy, scale, only_if_finite,
                     reinterpret_cast<const kernels::AdamWCoefficients*>(static_cast<float*>(coefficients)), n},
      stream);
}

struct Expected {
  Values p, m, v;
};

void check_state(const State& state, const Expected& exact, const Expected& rounded) {
  check_close("p", state.p.values(), exact.p, rounded.p);
  check_close("m", state.m.values(), exact.m, rounded.m);
  check_close("v", state.v.values(), exact.v, rounded.v);
}

TEST_CASE("AdamW is as exact as the plain formula") {
  const Buffer none(0, DType::f32), quarter(Values{0.25}, DType::f32);
  for_each_backend([&](auto backend, Stream stream) {
    for (int64_t n : kSizes)
      // Gradients so small that eps counts; parameters of 0, so that the update shows to its last digits.
      for (double size : {1.0, 1e-6})
        for (double start : {0.0, 1.0})
          for (bool scaled : {false, true}) {
            CAPTURE(n, size, start, scaled);
            Random random(n);
            State state = initial(random.normal(n, DType::f32, start).values());
            Expected exact{state.p.values(), Values(n), Values(n)}, rounded = exact;
            for (int64_t t = 1; t <= 3; ++t) {
              const Buffer g = random.normal(n, DType::f32, size);
              run(backend, stream, state, g, scaled ? quarter : none, t, kSettings);
              const double scale = scaled ? 0.25 : 1;
              reference::adamw<double>(exact.p, exact.m, exact.v, g.values(), scale, t, kSettings);
              reference::adamw<float>(rounded.p, rounded.m, rounded.v, g.values(), scale, t, kSettings);
              check_state(state, exact, rounded);
              CHECK(max_error(state.copy.values(), Buffer(state.p.values(), DType::bf16).values()) == 0);
            }
          }
  });
}

TEST_CASE("AdamW without a rounded copy gives the same parameters") {
  for_each_backend([](auto backend, Stream stream) {
    Random random(5);
    const Values p = random.normal(1001, DType::f32).values();
    const Buffer g = random.normal(1001, DType::f32), none(0, DType::f32);
    State with = initial(p), without{with.p, with.m, with.v, Buffer(0, DType::bf16)};
    run(backend, stream, with, g, none, 1, kSettings);
    run(backend, stream, without, g, none, 1, kSettings);
    CHECK(with.p.same_bits(without.p));
  });
}

TEST_CASE("AdamW leaves everything as it is where the number it looks at is not finite") {
  for_each_backend([](auto backend, Stream stream) {
    Random random(7);
    const Buffer g = random.normal(1001, DType::f32), none(0, DType::f32);
    const State before = initial(random.normal(1001, DType::f32).values());
    State always = before;
    run(backend, stream, always, g, none, 1, kSettings);
    for (const double number : {0.0, -3e38, double{NAN}, double{INFINITY}, -double{INFINITY}}) {
      CAPTURE(number);
      State state = before;
      run(backend, stream, state, g, none, 1, kSettings, Buffer(Values{number}, DType::f32));
      const State& expected = std::isfinite(number) ? always : before;
      CHECK(state.p.same_bits(expected.p));
      CHECK(state.m.same_bits(expected.m));
      CHECK(state.v.same_bits(expected.v));
      CHECK(state.copy.same_bits(expected.copy));
    }
  });
}

TEST_CASE("AdamW gives the same bits on one thread and on two") {
  for_each_backend([](auto backend) {
    Random random(6);
    State one = initial(random.normal(50001, DType::f32).values()), two = one;
    const Buffer g = random.normal(50001, DType::f32), none(0, DType::f32);
    with_threads(1, [&] { run(backend, {}, one, g, none, 1, kSettings); });
    with_threads(2, [&] { run(backend, {}, two, g, none, 1, kSettings); });
    CHECK(one.p.same_bits(two.p));
    CHECK(one.m.same_bits(two.m));
    CHECK(one.v.same_bits(two.v));
    CHECK(one.copy.same_bits(two.copy));
  });
}

TEST_CASE("AdamW follows PyTorch step by step, which passes the same rule") {
  const OpFixture fixture("adamw");
  constexpr AdamWSettings kCases[] = {kSettings, {2e-3, 0.9, 0.999, 1e-8, 0}, {1e-4, 0.9, 0.999, 1e-8, 0.01}};
  for (int k = 0; k < 3; ++k) {
    const int64_t n = fixture.shape(k, "in.grads")[1], steps = fixture.shape(k, "in.grads")[0];
    const Values start = fixture(k, "in.param"), gradients = fixture(k, "in.grads"), params = fixture(k, "out.params");
    const auto row = [&](const Values& all, int64_t t) {
      return Values(all.begin() + (t - 1) * n, all.begin() + t * n);
    };
    for_each_backend([&](auto backend, Stream stream) {
      State state = initial(start);
      Expected exact{start, Values(n), Values(n)}, rounded = exact;
      for (int64_t t = 1; t <= steps; ++t) {
        CAPTURE(k, t);
        const Values g = row(gradients, t);
        run(backend, stream, state, Buffer(g, DType::f32), Buffer(0, DType::f32), t, kCases[k]);
        reference::adamw<double>(exact.p, exact.m, exact.v, g, 1, t, kCases[k]);
        reference::adamw<float>(rounded.p, rounded.m, rounded.v, g, 1, t, kCases[k]);
        check_state(state, exact, rounded);
        check_close("PyTorch's p", row(params, t), exact.p, rounded.p);
      }
      check_close("PyTorch's m", fixture(k, "out.exp_avg"), exact.m, rounded.m);
      check_close("PyTorch's v", fixture(k, "out.exp_avg_sq"), exact.v, rounded.v);
    });
  }
}

// fp64 sums of at most a few million positive terms agree to about 1e-13.
constexpr double kSumError = 1e-12;

template <class Backend>
double sum_of_squares(Backend backend, Stream stream, Buffer x, int64_t n, double before, bool accumulate) {
  const Number<double> sum(before);
  kernels::sum_of_squares(backend, kernels::SumOfSquares{x, sum.place(), n, accumulate}, stream);
  return sum.value();
}

TEST_CASE("the sum of squares is exact to fp64, and the same on one thread and on two") {
  for_each_backend([](auto backend, Stream stream) {
    // The last: more than one chunk of the CPU's, and a remainder.
    for (int64_t n : {1, 31, 33, 1001, 16385, 100003}) {
      CAPTURE(n);
      const Buffer x = Random(n).normal(n, DType::f32, 1, 3);
      const double exact = dot(x.values(), x.values());
      with_threads(1, [&] {
        const double one = sum_of_squares(backend, stream, x, n, 5, false);
        CHECK(std::abs(one - exact) <= kSumError * exact);
        CHECK(std::abs(sum_of_squares(backend, stream, x, n, 5, true) - exact - 5) <= kSumError * (exact + 5));
        with_threads(2, [&] { CHECK(sum_of_squares(backend, stream, x, n, 5, false) == one); });
      });
    }
    CHECK(sum_of_squares(backend, stream, Buffer(0, DType::f32), 0, 5, true) == 5);
    CHECK(sum_of_squares(backend, stream, Buffer(0, DType::f32), 0, 5, false) == 0);
  });
}

template <class Backend>
Values clip(Backend backend, Stream stream, double squares, double max_norm) {
  const Number<double> sum(squares);
  Buffer norm(1, DType::f32), scale(1, DType::f32);
  kernels::clip_scale(backend, kernels::ClipScale{sum.place(), norm, scale, max_norm}, stream);
  return {norm.values()[0], scale.values()[0]};
}

TEST_CASE("clipping scales to the norm that is allowed, and never up") {
  for_each_backend([](auto backend, Stream stream) {
    CHECK(max_error(clip(backend, stream, 16, 1), {4, static_cast<float>(1 / (4 + 1e-6))}) == 0);
    CHECK(max_error(clip(backend, stream, 0.25, 1), {0.5, 1}) == 0);
    CHECK(max_error(clip(backend, stream, 0, 1), {0, 1}) == 0);
    CHECK(std::isnan(clip(backend, stream, NAN, 1)[1]));  // a broken gradient must not pass for a sound one
  });
}

TEST_CASE("clipping agrees with PyTorch") {
  const OpFixture fixture("clip_grad_norm");
  constexpr double kMaxNorm[] = {1, 1, 0.5};
  for (int k = 0; k < 3; ++k) {
    for_each_backend([&](auto backend, Stream stream) {
      double sum = 0;
      for (int i = 0; i < 3; ++i) {
        const Values g = fixture(k, "in.grad" + std::to_string(i));
        sum = sum_of_squares(backend, stream, Buffer(g, DType::f32), g.size(), sum, true);
      }
      const Values result = clip(backend, stream, sum, kMaxNorm[k]);
      check_close("norm", fixture(k, "out.norm"), {std::sqrt(sum)}, {result[0]});
      for (int i = 0; i < 3; ++i) {
        const Values g = fixture(k, "in.grad" + std::to_string(i));
        Values clipped(g.size());
        std::transform(g.begin(), g.end(), clipped.begin(), [&](double value) { return value * result[1]; });
        check_close("clipped", fixture(k, "out.grad" + std::to_string(i)), clipped, clipped);
      }
    });
  }
}

}  // namespace
}  // namespace nanovlm::testing
