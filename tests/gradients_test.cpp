// Every operation's gradient is the slope of its output: central differences in fp64 of the fp32 forward pass, along
// random directions, where a difference of two sums of many terms is far above fp32's rounding.
#include <cmath>

#include "engine/autograd.h"
#include "engine/ops.h"
#include "engine/random.h"
#include "tests/support/catch.h"

using namespace nanovlm;

namespace {

using Function = std::function<Tensor(const std::vector<Tensor>&)>;

Tensor moved(const Tensor& x, const std::vector<float>& direction, double step) {
  std::vector<float> values = to_host(x);
  for (size_t i = 0; i < values.size(); ++i) values[i] += static_cast<float>(step * direction[i]);
  return from_host(values, x.shape(), x.device());
}

double weighted(const Tensor& y, const std::vector<float>& weights) {
  const std::vector<float> values = to_host(y);
  double sum = 0;
  for (size_t i = 0; i < values.size(); ++i) sum += double{values[i]} * weights[i];
  return sum;
}

std::vector<float> random_values(int64_t n, Random& random) {
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = static_cast<float>(random.normal());
  return values;
}

// sum(weights * y), through the graph: one linear layer with a single output row.
Tensor contract(const Tensor& y, const std::vector<float>& weights) {
  const Tensor row = from_host(weights, {1, y.numel()}, y.device());
  return view(linear(view(cast(y, DType::f32), {1, y.numel()}), row, {}, DType::f32), {});
}

// For each input: d/ds f(x + s u) by differences against <gradient, u>.
void check_slopes(const Function& f, std::vector<Tensor> inputs, uint64_t seed) {
  Random random(seed);
  for (Tensor& x : inputs) x.set_requires_grad();
  const Tensor y = f(inputs);
  const std::vector<float> weights = random_values(y.numel(), random);
  backward(contract(y, weights));
  for (size_t i = 0; i < inputs.size(); ++i) {
    INFO("input " << i << " of shape " << inputs[i].shape());
    REQUIRE(inputs[i].grad().defined());
    for (int repeat = 0; repeat < 3; ++repeat) {
      const std::vector<float> u = random_values(inputs[i].numel(), random);
      constexpr double kStep = 1e-2;
      const auto at = [&](double step) {
        std::vector<Tensor> changed = inputs;
        for (Tensor& x : changed) x = x.detach();
        changed[i] = moved(inputs[i], u, step);
        return weighted(f(changed), weights);
      };
      // Richardson: the two differences together have no error of third order.
      const double coarse = (at(kStep) - at(-kStep)) / (2 * kStep), fine = (at(kStep / 2) - at(-kStep / 2)) / kStep;
      const double slope = (4 * fine - coarse) / 3;
      const double expected = weighted(inputs[i].grad(), u);
      double size = 0;  // of the terms that the slope is a sum of
      const std::vector<float> gradient = to_host(inputs[i].grad());
      for (size_t j = 0; j < gradient.size(); ++j) size += std::pow(double{gradient[j]} * u[j], 2);
      CHECK(std::abs(slope - expected) <= 2e-3 * (std::sqrt(size) + std::abs(expected)) + 2e-3);
    }
  }
}

}  // namespace

TEST_CASE("gradients are slopes") {
  const Device device = Device::open("cpu");
  Random random(3);
  const auto normal = [&](Shape shape) { return random_normal(std::move(shape), 1.0f, random, device); };
  const DType f32 = DType::f32;

  for (const auto& [R, C] : {std::pair<int64_t, int64_t>{1, 1}, {3, 31}, {7, 33}, {5, 64}}) {
    INFO("R = " << R << ", C = " << C);
    SECTION(text("rows of ", R, " x ", C)) {
      check_slopes([&](const auto& in) { return linear(in[0], in[1], in[2], f32); },
                   {normal({R, C}), normal({9, C}), normal({9})}, 1);
      check_slopes(
          [&](const auto& in) {
            return linear_joined(in[0], {in[1], in[2]}, f32);
          },
          {normal({R, C}), normal({9, C}), normal({4, C})}, 17);
      check_slopes([&](const auto& in) { return gelu(in[0]); }, {normal({R, C})}, 2);
      check_slopes([&](const auto& in) { return swiglu(in[0], in[1]); }, {normal({R, C}), normal({R, C})}, 3);
      check_slopes([&](const auto& in) { return swiglu(in[0]); }, {normal({R, 2 * C})}, 18);
      check_slopes([&](const auto& in) { return add({in[0], in[1]}); }, {normal({R, C}), normal({R, C})}, 4);
      check_slopes([&](const auto& in) { return scale(in[0], -1.7f); }, {normal({R, C})}, 5);
      if (C > 1) {  // a row of one number is normalised to a sign: no slope to measure
        const auto both = [&](const Normed& out) { return add({out.sum, out.y}); };
        check_slopes(
            [&](const auto& in) {
              return both(rms_norm({in[0], in[1]}, in[2], 1e-5f, f32));
            },
            {normal({R, C}), normal({R, C}), normal({C})}, 6);
        check_slopes(
            [&](const auto& in) {
              return both(layer_norm({in[0], in[1]}, in[2], in[3], 1e-6f, f32));
            },
            {normal({R, C}), normal({R, C}), normal({C}), normal({C})}, 7);
        check_slopes(
            [&](const auto& in) {
              return rms_norm({in[0], {}}, in[1], 1e-5f, f32).y;
            },
            {normal({R, C}), normal({C})}, 8);
      }
    }
  }
  SECTION("an MLP, by kernels of its own and by epilogues") {
    std::vector<Device> both = {device};
    if (Device::why_absent("simt").empty()) both.push_back(Device::open("simt", {"mlp=epilogue"}));
    for (const Device& on : both) {
      INFO("device: " << on.name());
      const auto there = [&](Shape shape) { return to_device(normal(std::move(shape)), on); };
      check_slopes([&](const auto& in) { return mlp(in[0], in[1], in[2], in[3], in[4], f32); },
                   {there({7, 5}), there({9, 5}), there({9}), there({4, 9}), there({4})}, 19);
    }
  }
  SECTION("rows by index") {
    check_slopes([&](const auto& in) { return embedding(in[0], {3, 0, 3, 10, 3, 7}); }, {normal({11, 5})}, 9);
    check_slopes([&](const auto& in) { return gather_rows(in[0], {4, 1, 0}); }, {normal({6, 33})}, 10);
    check_slopes(
        [&](const auto& in) {
          return splice(in[0], {0, 3}, in[1], {1, 2, 4});
        },
        {normal({2, 7}), normal({3, 7})}, 11);
  }
  SECTION("attention: grouped heads, segments of unequal length, padding, rotation") {
    const int64_t R = 13;
    Segments segments;
    segments.bounds = from_host(std::vector<int32_t>{0, 6, 6, 7, 13}, {5}, device);
    segments.longest = 6;
    segments.key_mask = from_host(std::vector<uint8_t>{1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0}, {R}, device);
    RopeTable rope = {normal({6, 4}), normal({6, 4})};
    for (const bool causal : {true, false})
      check_slopes(
          [&](const auto& in) {
            return attention(in[0], in[1], in[2], {6, 2, 8}, segments, rope, causal);
          },
          {normal({R, 48}), normal({R, 16}), normal({R, 16})}, 12);
    check_slopes(
        [&](const auto& in) {
          return attention(in[0], {2, 2, 3}, segments, {}, false);
        },
        {normal({R, 18})}, 13);
  }
  SECTION("pictures") {
    for (const int S : {8, 11})  // 11: pixels that fill no patch have no gradient
      check_slopes([&](const auto& in) { return patch_embedding(in[0], in[1], in[2], in[3], f32); },
                   {normal({2, 3, S, S}), normal({5, 3, 4, 4}), normal({5}), normal({1, 4, 5})}, 14);
    check_slopes([&](const auto& in) { return pixel_shuffle(in[0], 2, 3); }, {normal({2 * 36, 5})}, 15);
  }
  SECTION("loss through the head") {
    check_slopes(
        [&](const auto& in) {
          return linear_cross_entropy(in[0], in[1], {4, 0, 10, 4}, f32);
        },
        {normal({4, 9}), normal({11, 9})}, 16);
  }
}

TEST_CASE("an operation without a gradient says so by name when one is asked for") {
  const Device device = Device::open("cpu");
  Random random(1);
  Tensor x = random_normal({2, 8}, 1, random, device).set_requires_grad();
  const RopeTable table = {random_normal({4, 4}, 1, random, device), random_normal({4, 4}, 1, random, device)};
  const Tensor y = rope(x, 1, 8, table, from_host(std::vector<int32_t>{0, 3}, {2}, device));
  CHECK_THROWS_WITH(backward(contract(y, std::vector<float>(16, 1))), contains("rope: has no gradient"));
}

TEST_CASE("gradients add up over uses and over backward passes") {
  const Device device = Device::open("cpu");
  Tensor x = from_host(std::vector<float>{1, 2}, {1, 2}, device).set_requires_grad();
  const auto pass = [&] { backward(contract(add({scale(x, 3), scale(x, 4)}), {1, 10})); };
  pass();
  CHECK(to_host(x.grad()) == std::vector<float>{7, 70});
  pass();
  CHECK(to_host(x.grad()) == std::vector<float>{14, 140});
}

// d/dx sum(weights * y) = weights where y is x: what flows back through add and view is their own input.
TEST_CASE("a gradient that several tensors are given is added to each of them once") {
  const Device device = Device::open("cpu");
  using Floats = std::vector<float>;
  const Floats w = {1, 10};
  const auto leaf = [&] { return from_host(Floats{1, 2}, {1, 2}, device).set_requires_grad(); };

  SECTION("twice the same input") {
    const Tensor x = leaf();
    for (const float passes : {1.0f, 2.0f}) {
      backward(contract(add({x, x}), w));
      CHECK(to_host(x.grad()) == Floats{2 * passes, 20 * passes});
    }
  }
  SECTION("two inputs, over several passes") {
    const Tensor a = leaf(), d = leaf();
    for (const float passes : {1.0f, 2.0f, 3.0f}) {
      backward(contract(add({a, view(d, {1, 2})}), w));
      CHECK(to_host(a.grad()) == Floats{passes, 10 * passes});
      CHECK(to_host(d.grad()) == Floats{passes, 10 * passes});
    }
  }
  SECTION("an input whose other use comes while the gradient is still on its way") {
    const Tensor a = leaf(), d = leaf();
    const Tensor early = scale(d, 2), late = scale(a, 3);
    backward(contract(add({add({a, early}), late}), w));
    CHECK(to_host(a.grad()) == Floats{4, 40});
    CHECK(to_host(d.grad()) == Floats{2, 20});
  }
  SECTION("a weight whose layer adds to what there is in place") {
    const Tensor weight = leaf(), d = leaf(), x = from_host(Floats{7, 8}, {1, 2}, device);
    const Tensor early = linear(x, weight, {}, DType::f32), late = contract(add({weight, d}), w);
    backward(add({view(early, {}), late}));
    CHECK(to_host(weight.grad()) == Floats{8, 18});
    CHECK(to_host(d.grad()) == w);
  }
  SECTION("a gradient that was set is not written to") {
    const Tensor x = leaf(), given = from_host(Floats{5, 6}, {1, 2}, device);
    x.set_grad(given);
    backward(contract(scale(x, 1), w));
    CHECK(to_host(x.grad()) == Floats{6, 16});
    CHECK(to_host(given) == Floats{5, 6});
  }
}

TEST_CASE("after a backward pass that threw, the next one counts a leaf's uses anew") {
  const Device device = Device::open("cpu");
  const Tensor x = from_host(std::vector<float>{1, 2}, {1, 2}, device).set_requires_grad();
  const Tensor kept = scale(x, 2);
  int done = 0;
  const auto count = [&](Leaf&) { ++done; };
  const Tensor fails = without_gradient("broken", scale(kept, 1), {kept});
  CHECK_THROWS_WITH(backward(contract(add({fails, scale(kept, 5)}), {1, 10}), count), contains("broken"));
  CHECK(done == 0);
  backward(contract(kept, {1, 10}), count);
  CHECK(done == 1);
  CHECK(to_host(x.grad()) == std::vector<float>{2, 20});
}

TEST_CASE("a graph that has run is refused before anything is added") {
  const Device device = Device::open("cpu");
  const Tensor x = from_host(std::vector<float>{1, 2}, {1, 2}, device).set_requires_grad();
  const Tensor kept = scale(x, 2), once = contract(kept, {1, 10}), again = contract(add({kept, x}), {1, 10});
  backward(once);
  CHECK_THROWS_WITH(backward(again), "scale: backward was called twice on the same graph");
  CHECK(to_host(x.grad()) == std::vector<float>{2, 20});
}

TEST_CASE("shapes that do not agree are named") {
  const Device device = Device::open("cpu");
  const Tensor x = zeros({2, 8}, DType::f32, device), w = zeros({7}, DType::f32, device);
  CHECK_THROWS_WITH(rms_norm({x, {}}, w, 1e-5f, DType::f32), "rms_norm: weight is [7], but x is [2, 8]");
  CHECK_THROWS_WITH(linear(x, zeros({3, 9}, DType::f32, device), {}, DType::f32),
                    "linear: x is [2, 8], but weight is [3, 9]");
  CHECK_THROWS_WITH(embedding(x, {0, 2}), "embedding: index 1 is 2, but there are 2 rows");
  CHECK_THROWS_WITH(pixel_shuffle(zeros({8, 4}, DType::f32, device), 1, 2), contains("square"));
  CHECK_THROWS_WITH(linear_cross_entropy(x, zeros({5, 8}, DType::f32, device), {1, 5}, DType::f32),
                    contains("target 5"));
}
