// The optimizer above its kernels: which gradients it reads, when it updates, clipping.
#include "engine/optimizer.h"

#include <cmath>

#include "engine/random.h"
#include "engine/recording.h"
#include "tests/support/catch.h"
#include "tests/support/devices.h"

using namespace nanovlm;
using namespace nanovlm::testing;

namespace {

using Numbers = std::vector<std::vector<float>>;
constexpr int64_t kSizes[] = {5, 4097, 0, 300};

Numbers random_numbers(uint64_t seed) {
  Random random(seed);
  Numbers all;
  for (const int64_t n : kSizes) all.push_back(to_host(random_normal({n}, 1, random, Device::open("cpu"))));
  return all;
}

std::vector<Tensor> zeros_on(const Device& device) {
  std::vector<Tensor> all;
  for (const int64_t n : kSizes) all.push_back(zeros({n}, DType::f32, device));
  return all;
}

void fill(const std::vector<Tensor>& tensors, const Numbers& numbers) {
  for (size_t i = 0; i < tensors.size(); ++i) copy_from_host(tensors[i], numbers[i].data(), tensors[i].bytes());
}

void fill(const std::vector<Tensor>& tensors, float number) {
  Numbers numbers;
  for (const int64_t n : kSizes) numbers.emplace_back(n, number);
  fill(tensors, numbers);
}

// Parameters of ones in two groups, whose rates differ.
struct Training {
  std::vector<Tensor> x;
  AdamW optimizer;

  explicit Training(const Device& device)
      : x(parameters(device)), optimizer({{{x[0], x[1]}, 0}, {{x[2], x[3]}, 0}}, {}) {}
  static std::vector<Tensor> parameters(const Device& device) {
    std::vector<Tensor> x = zeros_on(device);
    fill(x, 1);
    for (Tensor& one : x) one.set_requires_grad();
    return x;
  }

  void begin(double rate) { optimizer.begin_step({rate, rate / 2}); }
  void update(const std::vector<Tensor>& gradients) {
    for (size_t i = 0; i < x.size(); ++i) x[i].set_grad(gradients[i]);
    optimizer.update_all();
    optimizer.zero_grad();
  }
  Numbers numbers() const {
    Numbers all;
    for (const Tensor& one : x) all.push_back(to_host(one));
    return all;
  }
};

}  // namespace

TEST_CASE("the optimizer reads gradients where they are, in recorded steps too") {
  for (const Device& device : devices()) {
    INFO("device: " << device.name());
    Training resting(device), moving(device), recorded(device);
    const std::vector<Tensor> place = zeros_on(device), places[] = {zeros_on(device), zeros_on(device)};
    std::unique_ptr<Recording> recordings[2];
    recorded.begin(0);
    for (int i = 0; i < 2; ++i) {
      const auto work = [&recorded, &gradients = places[i]] { recorded.update(gradients); };
      REQUIRE(Recording::rehearse(device, work));  // a rate and gradients of 0: nothing changes
      recordings[i] = std::make_unique<Recording>(device, work);
    }
    std::vector<std::vector<Tensor>> left;  // in memory, so that each step's gradients lie elsewhere
    for (int t = 0; t < 4; ++t) {
      const double rate = 0.1 / (t + 1);
      const Numbers gradients = random_numbers(static_cast<uint64_t>(t));
      fill(place, gradients);
      left.push_back(zeros_on(device));
      fill(left.back(), gradients);
      fill(places[t % 2], gradients);
      fill(places[1 - t % 2], NAN);
      for (Training* training : {&resting, &moving, &recorded}) training->begin(rate);
      {
        const LaunchesOnly launches_only(device);
        resting.update(place);
        moving.update(left.back());
      }
      recordings[t % 2]->replay();
      for (Training* training : {&resting, &moving, &recorded}) training->optimizer.end_step(true);
      fill(left.back(), NAN);
    }
    CHECK(moving.numbers() == resting.numbers());
    CHECK(recorded.numbers() == resting.numbers());
    // Each group has its own rate: a first step moves every entry by it.
    Training first(device);
    first.begin(0.5);
    fill(place, random_numbers(9));
    first.update(place);
    const Numbers moved = first.numbers();
    CHECK(std::abs(moved[0][0] - (1 - 0.01f * 0.5f)) == Approx(0.5).epsilon(1e-3));
    CHECK(std::abs(moved[3][0] - (1 - 0.01f * 0.25f)) == Approx(0.25).epsilon(1e-3));
  }
}

TEST_CASE("gradients that are taken away update their parameters some together, and change no bit") {
  constexpr int64_t kMillion = 1 << 20;
  const Device device = Device::open("cpu");
  Random random(1);
  const std::vector<int64_t> sizes = {3 * kMillion, 5, kMillion, 7};  // 12 MiB, 16 MiB with the third
  const auto parameters = [&] {
    std::vector<Tensor> x;
    for (const int64_t n : sizes) x.push_back(zeros({n}, DType::f32, device).set_requires_grad());
    return x;
  };
  std::vector<Tensor> together = parameters(), taken = parameters(), gradients;
  for (const int64_t n : sizes) gradients.push_back(random_normal({n}, 1, random, device));

  AdamW at_once({{together, 0}}, {}), in_turn({{taken, 0}}, {});
  at_once.begin_step({0.1});
  for (size_t i = 0; i < sizes.size(); ++i) together[i].set_grad(gradients[i]);
  at_once.update_all();

  in_turn.begin_step({0.1});
  const auto updated = [&] {
    std::vector<bool> all;
    for (size_t i = 0; i < sizes.size(); ++i) all.push_back(to_host(taken[i]) == to_host(together[i]));
    return all;
  };
  const auto take = [&](size_t i) {
    taken[i].set_grad(gradients[i]);
    in_turn.take(*taken[i].leaf());
    CHECK_FALSE(taken[i].grad().defined());
    return updated();
  };
  CHECK(take(0) == std::vector{false, false, false, false});
  CHECK(take(1) == std::vector{false, false, false, false});
  CHECK(take(2) == std::vector{true, true, true, false});
  CHECK(take(3) == std::vector{true, true, true, false});
  in_turn.update_all();
  CHECK(updated() == std::vector{true, true, true, true});
}

TEST_CASE("clipping scales all gradients by one factor") {
  // With an eps this large a first step is nearly rate * gradient / eps: it shows how large the gradient was.
  constexpr double kEps = 1e4;
  const AdamWOptions options{.eps = kEps, .weight_decay = 0};
  for (const Device& device : devices()) {
    INFO("device: " << device.name());
    const auto check_step = [&](double max_norm, double factor) {
      const Tensor a = zeros({2}, DType::f32, device).set_requires_grad();
      const Tensor b = zeros({1}, DType::f32, device).set_requires_grad();
      AdamW optimizer({{{a}, 0}, {{b}, 0}}, options);
      optimizer.begin_step({kEps, kEps});
      a.set_grad(from_host(std::vector<float>{3, 0}, {2}, device));
      b.set_grad(from_host(std::vector<float>{-4}, {1}, device));
      const Tensor norm = empty({1}, DType::f32, device);
      optimizer.clip_grad_norm(max_norm, norm);
      optimizer.update_all();
      optimizer.end_step(true);
      CAPTURE(max_norm);
      CHECK(norm.item() == Approx(5.0));
      CHECK(to_host(a)[0] == Approx(-3 * factor).epsilon(1e-3));
      CHECK(to_host(a)[1] == 0);
      CHECK(to_host(b)[0] == Approx(4 * factor).epsilon(1e-3));
    };
    check_step(1, 0.2);
    check_step(4, 0.8);
    check_step(6, 1);  // the norm is below
    check_step(0, 1);  // off
  }
}

TEST_CASE("the optimizer refuses what it cannot train") {
  const Device device = Device::open("cpu");
  const Tensor plain = zeros({2}, DType::f32, device);
  CHECK_THROWS_WITH(AdamW({{{plain}, 0.1}}, {}), contains("asks for no gradient"));
  Tensor leaf = zeros({2}, DType::f32, device);
  leaf.set_requires_grad();
  CHECK_THROWS_WITH(AdamW({{{leaf, leaf}, 0.1}}, {}), contains("twice"));
}
