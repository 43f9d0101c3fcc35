#include <array>
#include <bit>
#include <cmath>
#include <map>
#include <span>
#include <vector>

#include "kernels/adamw/coefficients.h"

#include "tests/support/backends.h"
#include "tests/support/fixture.h"
#include "tests/support/reference.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

using reference::AdamWSettings;
constexpr AdamWSettings kSettings{.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01};
constexpr AdamWSettings kGroups[] = {kSettings, {2e-3, 0.9, 0.999, 1e-8, 0}, {1e-4, 0.8, 0.95, 1e-6, 0.1}};

// An array that begins `shift` entries beyond a boundary of 64 bytes: vectors need 16.
class Array {
 public:
  Array(const Values& values, DType dtype, int64_t shift = 0) : shift_(shift), buffer_(shifted(values, shift), dtype) {}

  template <class T>
  operator T*() {
    return buffer_.size() > 0 ? static_cast<T*>(buffer_) + shift_ : nullptr;
  }
  Values values() const {
    const Values all = buffer_.values();
    return {all.begin() + shift_, all.end()};
  }
  bool same_bits(const Array& other) const { return buffer_.same_bits(other.buffer_); }

 private:
  static Values shifted(const Values& values, int64_t shift) {
    Values all(static_cast<size_t>(shift), 77);
    all.insert(all.end(), values.begin(), values.end());
    return all;
  }
  int64_t shift_;
  Buffer buffer_;
};

struct Parameter {
  Array p, m, v, copy, g;
  size_t group;

  Parameter(const Values& p, const Values& g, int64_t shift = 0, int64_t shift_of_g = 0, size_t group = 0,
            bool with_copy = true)
      : p(p, DType::f32, shift),
        m(Values(p.size()), DType::f32, shift),
        v(Values(p.size()), DType::f32, shift),
        copy(with_copy ? Values(p.size()) : Values(), DType::bf16, with_copy ? shift : 0),
        g(g, DType::f32, shift_of_g),
        group(group) {}

  bool same_bits(const Parameter& other) const {
    return p.same_bits(other.p) && m.same_bits(other.m) && v.same_bits(other.v) && copy.same_bits(other.copy);
  }
};

// Awkward sizes, with vectors and without, in all groups; a gradient's entries have magnitude `size`.
std::vector<Parameter> parameters_of(std::vector<int64_t> sizes, double start = 1, double size = 1) {
  constexpr int64_t kShifts[][2] = {{0, 0}, {0, 1}, {1, 0}, {3, 2}};
  std::vector<Parameter> all;
  for (const int64_t n : sizes)
    for (const auto [shift, shift_of_g] : kShifts) {
      Random random(static_cast<uint64_t>(all.size()) + 1);
      const Values p = random.normal(n, DType::f32, start).values(), g = random.normal(n, DType::f32, size).values();
      all.emplace_back(p, g, shift, shift_of_g, all.size() % std::size(kGroups));
    }
  return all;
}

// One step. scale and only_if_finite are empty (null) or one number.
template <class Backend>
void run(Backend backend, Stream stream, std::span<Parameter> parameters, Buffer scale = Buffer(0, DType::f32),
         int64_t t = 1, std::span<const AdamWSettings> groups = kGroups,
         Buffer only_if_finite = Buffer(0, DType::f32)) {
  Values numbers;
  for (const AdamWSettings& a : groups) {
    const auto group = std::bit_cast<std::array<float, 8>>(
        kernels::adamw_coefficients({t, a.lr, a.beta1, a.beta2, a.eps, a.weight_decay}));
    numbers.insert(numbers.end(), group.begin(), group.end());
  }
  Buffer coefficients(numbers, DType::f32);
  const auto* first = reinterpret_cast<const kernels::AdamWCoefficients*>(static_cast<float*>(coefficients));
  std::vector<kernels::AdamWTensor> tensors;
  for (Parameter& x : parameters)
    tensors.push_back({x.p, x.m, x.v, x.g, x.copy, first + x.group, static_cast<int64_t>(x.p.values().size())});
  kernels::adamw(backend, {tensors.data(), static_cast<int64_t>(tensors.size()), scale, only_if_finite}, stream);
}

struct Expected {
  Values p, m, v;
};

void check_state(const Parameter& state, const Expected& exact, const Expected& rounded) {
  check_close("p", state.p.values(), exact.p, rounded.p);
  check_close("m", state.m.values(), exact.m, rounded.m);
  check_close("v", state.v.values(), exact.v, rounded.v);
}

TEST_CASE("AdamW is as exact as the plain formula") {
  const Buffer none(0, DType::f32), quarter(Values{0.25}, DType::f32);
  for_each_backend([&](auto backend, Stream stream) {
    // Gradients so small that eps counts; parameters of 0, so that the update shows to its last digits.
    for (double size : {1.0, 1e-6})
      for (double start : {0.0, 1.0})
        for (bool scaled : {false, true}) {
          CAPTURE(size, start, scaled);
          std::vector<Parameter> states = parameters_of({1, 3, 0, 4, 5, 31, 33, 1001, 4097, 0}, start, size);
          std::vector<Expected> exact, rounded;
          for (const Parameter& x : states)
            exact.push_back({x.p.values(), Values(x.p.values().size()), Values(x.p.values().size())});
          rounded = exact;
          for (int64_t t = 1; t <= 3; ++t) {
            run(backend, stream, states, scaled ? quarter : none, t);
            const double scale = scaled ? 0.25 : 1;
            for (size_t i = 0; i < states.size(); ++i) {
              const Values g = states[i].g.values();
              const AdamWSettings& settings = kGroups[states[i].group];
              reference::adamw<double>(exact[i].p, exact[i].m, exact[i].v, g, scale, t, settings);
              reference::adamw<float>(rounded[i].p, rounded[i].m, rounded[i].v, g, scale, t, settings);
              CAPTURE(i, t, g.size());
              check_state(states[i], exact[i], rounded[i]);
              CHECK(max_error(states[i].copy.values(), Buffer(states[i].p.values(), DType::bf16).values()) == 0);
            }
          }
        }
  });
}

TEST_CASE("AdamW gives a tensor the same bits alone, among many, on one thread, on two, and without a copy") {
  std::vector<int64_t> sizes = {70000, 0, 4096, 4097, 8191, 0};
  for (int64_t n = 0; n < 30; ++n) sizes.push_back(n * n);  // more than one launch's arguments hold
  const std::vector<Parameter> before = parameters_of(sizes);
  for_each_backend([&](auto backend, Stream stream) {
    std::vector<Parameter> alone = before, together = before, on_two = before;
    for (Parameter& x : alone) run(backend, stream, {&x, 1});
    with_threads(1, [&] { run(backend, stream, together); });
    with_threads(2, [&] { run(backend, stream, on_two); });
    std::vector<Parameter> plain;
    for (Parameter x : before) {
      x.copy = Array({}, DType::bf16);
      plain.push_back(std::move(x));
    }
    run(backend, stream, plain);
    for (size_t i = 0; i < before.size(); ++i) {
      CAPTURE(i, before[i].p.values().size());
      CHECK(together[i].same_bits(alone[i]));
      CHECK(on_two[i].same_bits(alone[i]));
      CHECK(plain[i].p.same_bits(alone[i].p));
      CHECK((before[i].p.values().empty() || !together[i].p.same_bits(before[i].p)));
    }
    run(backend, stream, {});
  });
}

TEST_CASE("AdamW leaves everything as it is where the number it looks at is not finite") {
  for_each_backend([](auto backend, Stream stream) {
    const std::vector<Parameter> before = parameters_of({1001, 5});
    std::vector<Parameter> always = before;
    run(backend, stream, always);
    for (const double number : {0.0, -3e38, double{NAN}, double{INFINITY}, -double{INFINITY}}) {
      CAPTURE(number);
      std::vector<Parameter> states = before;
      run(backend, stream, states, Buffer(0, DType::f32), 1, kGroups, Buffer(Values{number}, DType::f32));
      const std::vector<Parameter>& expected = std::isfinite(number) ? always : before;
      for (size_t i = 0; i < states.size(); ++i) CHECK(states[i].same_bits(expected[i]));
    }
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
      Parameter state(start, Values(n));
      Expected exact{start, Values(n), Values(n)}, rounded = exact;
      for (int64_t t = 1; t <= steps; ++t) {
        CAPTURE(k, t);
        const Values g = row(gradients, t);
        state.g = Array(g, DType::f32);
        run(backend, stream, {&state, 1}, Buffer(0, DType::f32), t, {&kCases[k], 1});
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

struct Clipped {
  double norm, scale;
};

template <class Backend>
Clipped clip(Backend backend, Stream stream, std::span<Array> gradients, double max_norm) {
  std::vector<kernels::Gradient> list;
  for (Array& x : gradients) list.push_back({x, static_cast<int64_t>(x.values().size())});
  Buffer norm(1, DType::f32), scale(1, DType::f32);
  kernels::clip_scale(backend, {list.data(), static_cast<int64_t>(list.size()), norm, scale, max_norm}, stream);
  return {norm.values()[0], scale.values()[0]};
}

TEST_CASE("the norm of all gradients is exact to its last digit, and the same on one thread and on two") {
  // The last: more than one chunk, and a remainder. All in all more than one launch's arguments hold.
  std::vector<int64_t> sizes = {1, 0, 3, 4, 5, 31, 1001, 16384, 16385, 100003, 0};
  sizes.insert(sizes.end(), 300, 33);
  std::vector<Array> gradients;
  double squares = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const Values values = Random(i).normal(sizes[i], DType::f32, 1, 3).values();
    gradients.emplace_back(values, DType::f32, static_cast<int64_t>(i % 4));
    squares += dot(values, values);
  }
  // fp64 sums of at most a few million positive terms agree to about 1e-13.
  const double exact = std::sqrt(squares), error = 1e-12 * exact;
  for_each_backend([&](auto backend, Stream stream) {
    with_threads(1, [&] {
      const double norm = clip(backend, stream, gradients, 1).norm;
      CHECK(norm >= static_cast<float>(exact - error));
      CHECK(norm <= static_cast<float>(exact + error));
      with_threads(2, [&] { CHECK(clip(backend, stream, gradients, 1).norm == norm); });
    });
  });
}

TEST_CASE("clipping scales to the norm that is allowed, and never up") {
  for_each_backend([](auto backend, Stream stream) {
    const auto clipped = [&](const std::vector<Values>& values) {
      std::vector<Array> gradients;
      for (const Values& x : values) gradients.emplace_back(x, DType::f32);
      const Clipped result = clip(backend, stream, gradients, 1);
      return Values{result.norm, result.scale};
    };
    CHECK(max_error(clipped({{2, -2}, {2, 2}}), {4, static_cast<float>(1 / (4 + 1e-6))}) == 0);
    CHECK(max_error(clipped({{0.5}}), {0.5, 1}) == 0);
    CHECK(max_error(clipped({{0, 0}}), {0, 1}) == 0);
    CHECK(max_error(clipped({{}}), {0, 1}) == 0);
    CHECK(max_error(clipped({}), {0, 1}) == 0);
    CHECK(std::isnan(clipped({{1}, {0, NAN}})[1]));  // a broken gradient must not pass for a sound one
  });
}

TEST_CASE("clipping agrees with PyTorch") {
  const OpFixture fixture("clip_grad_norm");
  constexpr double kMaxNorm[] = {1, 1, 0.5};
  for (int k = 0; k < 3; ++k) {
    for_each_backend([&](auto backend, Stream stream) {
      double squares = 0;
      std::vector<Array> gradients;
      for (int i = 0; i < 3; ++i) {
        const Values g = fixture(k, "in.grad" + std::to_string(i));
        squares += dot(g, g);
        gradients.emplace_back(g, DType::f32);
      }
      const Clipped result = clip(backend, stream, gradients, kMaxNorm[k]);
      check_close("norm", fixture(k, "out.norm"), {std::sqrt(squares)}, {result.norm});
      for (int i = 0; i < 3; ++i) {
        Values clipped = gradients[i].values();
        for (double& value : clipped) value *= result.scale;
        check_close("clipped", fixture(k, "out.grad" + std::to_string(i)), clipped, clipped);
      }
    });
  }
}

#if defined(NANOVLM_SIMT_KERNELS)
TEST_CASE("hundreds of tensors take a few launches") {
  simt::Executor executor({.copies = simt::Copies::late});
  std::vector<Parameter> parameters = parameters_of(std::vector<int64_t>(105, 33));
  std::vector<Array> gradients;
  for (const Parameter& x : parameters) gradients.push_back(x.g);
  run(Simt{}, executor.stream(), parameters);
  clip(Simt{}, executor.stream(), gradients, 1);
  std::map<std::string, int64_t> launches;
  for (const simt::KernelReport& report : executor.reports()) launches[report.kernel] = report.launches;
  CHECK(launches == std::map<std::string, int64_t>{{"adamw", 7}, {"sum_of_squares", 3}, {"clip_scale", 1}});
}
#endif

}  // namespace
}  // namespace nanovlm::testing
