// Filters, probabilities and drawn tokens: the kernel against the reference's files and a plain formula, then the
// model's sample().
#include "kernels/sampling/sampling.h"

#include <algorithm>
#include <fstream>
#include <numeric>
#include <optional>

#include <nlohmann/json.hpp>

#include "model/sampling.h"
#include "tests/support/backends.h"
#include "tests/support/buffer.h"
#include "tests/support/devices.h"
#include "tests/support/golden.h"
#include "tests/support/sampling_reference.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

struct Sampled {
  Values tokens, probabilities;
};

template <class Backend>
Sampled run(Backend backend, Stream stream, Buffer& logits, Buffer& uniform, int64_t V, const Filters& f) {
  const int64_t R = logits.size() / size_of(DType::f32) / V;
  Buffer tokens(R, DType::i32), probabilities(R * V, DType::f32);
  kernels::sampling(backend,
                    kernels::Sampling{logits, uniform, tokens, probabilities, R, V, f.top_k,
                                      static_cast<float>(f.top_p), static_cast<float>(f.temperature)},
                    stream);
  return {tokens.values(), probabilities.values()};
}

Buffer numbers(int64_t n, uint64_t seed) {
  nanovlm::Random random(seed);
  Values values(static_cast<size_t>(n));
  for (double& value : values) value = random.uniform();
  return {values, DType::f32};
}

void check_row(const double* logits, int64_t V, const Filters& f, double uniform, int64_t token,
               const double* probabilities) {
  const ExpectedTokens expected(logits, V, f);
  CHECK(expected.misses(token, uniform) <= kSamplingRounding);
  CHECK(max_error(Values(probabilities, probabilities + V), expected.spread(V)) <= kSamplingRounding);
}

void check_rows(Buffer& logits, int64_t V, const Filters& f, uint64_t seed) {
  CAPTURE(f.top_k, f.top_p, f.temperature, V);
  const Values values = logits.values();
  const int64_t R = static_cast<int64_t>(values.size()) / V;
  Buffer uniform = numbers(R, seed);
  const Values drawn = uniform.values();
  std::optional<Sampled> first;  // of simt's, which give the same bits in all orders
  for_each_backend([&](auto backend, Stream stream) {
    const Sampled out = run(backend, stream, logits, uniform, V, f);
    for (int64_t r = 0; r < R; ++r)
      check_row(&values[r * V], V, f, drawn[r], static_cast<int64_t>(out.tokens[r]), &out.probabilities[r * V]);
    if (!std::is_same_v<decltype(backend), Simt>) {
      const Sampled again = run(backend, stream, logits, uniform, V, f);
      CHECK(again.tokens == out.tokens);
      CHECK(again.probabilities == out.probabilities);
      return;
    }
    if (!first) first = out;
    CHECK(first->tokens == out.tokens);
    CHECK(first->probabilities == out.probabilities);
  });
}

TEST_CASE("filters keep the reference's tokens, with its probabilities") {
  const SafetensorsFile file = SafetensorsFile::open(fixture("sampling/cases.safetensors"));
  const auto cases = nlohmann::json::parse(std::ifstream(fixture("sampling/cases.json")));
  REQUIRE(cases.size() > 10);
  for (const auto& c : cases) {
    const int number = c["case"];
    const std::string name = "case" + std::to_string(number);
    INFO(name << " " << c.dump());
    const std::string source = c["logits"];
    const std::vector<float> given = file.read_f32(source);
    const std::vector<float> probs = file.read_f32(name + ".probs");
    const std::vector<int64_t> keep = file.read_i64(name + ".keep");
    const int64_t V = file.entry(source).shape[1], R = static_cast<int64_t>(given.size()) / V;
    Buffer logits(Values(given.begin(), given.end()), DType::f32), uniform = numbers(R, 1);
    int runs = 0;
    for_each_backend([&](auto backend, Stream stream) {
      // Each case in one of simt's orders, by turns; the other tests meet all of them.
      if (std::is_same_v<decltype(backend), Simt> && runs++ % 7 != number % 7) return;
      const Sampled out = run(backend, stream, logits, uniform, V, {c["top_k"], c["top_p"], c["temperature"]});
      for (int64_t r = 0; r < R; ++r) {
        Values ours(&out.probabilities[r * V], &out.probabilities[r * V] + V);
        Values theirs(&probs[r * V], &probs[r * V] + V);
        CHECK(std::count_if(ours.begin(), ours.end(), [](double p) { return p > 0; }) <=
              std::count(&keep[r * V], &keep[r * V] + V, 1));
        CHECK(ours[static_cast<size_t>(out.tokens[r])] > 0);
        // Among equal logits the reference's choice of whom to drop is the sort's; their probabilities are the same.
        std::sort(ours.begin(), ours.end());
        std::sort(theirs.begin(), theirs.end());
        CHECK(max_error(ours, theirs) <= 1e-6);
      }
    });
  }
}

TEST_CASE("probabilities and tokens are the plain formula's") {
  Random random(3);
  Buffer small = random.normal(3 * 33, DType::f32, 3), large = random.normal(2 * 1300, DType::f32, 2, -40);
  for (const Filters& f : {Filters{}, {5, 0.9, 0.5}, {1, 1, 1}, {0, 0.6, 2}, {33, 0, 1}, {40, 0.3, 0.1}})
    check_rows(small, 33, f, 11);
  for (const Filters& f : {Filters{50, 0.9, 0.5}, {600, 0.95, 1}, {0, 0.8, 1.5}}) check_rows(large, 1300, f, 12);
}

TEST_CASE("equal logits stay and go by their ids") {
  Random random(4);
  Values logits = random.integers(3 * 700, 4).values();  // 4 different ones
  for (size_t v = 0; v < 700; ++v) logits[v] = v % 2 ? 0.0 : -0.0;
  Buffer ties(logits, DType::f32);
  for (const Filters& f : {Filters{7, 1, 1}, {7, 0.123, 1}, {0, 0.777, 0.7}}) check_rows(ties, 700, f, 13);
  Buffer too_many_to_list(Values(1100, 1.5), DType::f32);
  check_rows(too_many_to_list, 1100, {3, 0.4321, 1}, 14);
}

TEST_CASE("sampling's edges: one token, -inf, greedy, broken rows") {
  const double infinity = std::numeric_limits<double>::infinity();
  Buffer one(Values{-3}, DType::f32);
  check_rows(one, 1, {50, 0.9, 0.5}, 15);
  Buffer masked({-infinity, 2, -infinity, 2, 1}, DType::f32);
  check_rows(masked, 5, {4, 0.9, 1}, 16);

  Buffer rows({1, 3, 3, 2, 0, -1, NAN, 1, 4, infinity, 1, 2, -infinity, -infinity, -infinity, -infinity}, DType::f32);
  Buffer uniform = numbers(4, 17), none(0, DType::f32);
  for_each_backend([&](auto backend, Stream stream) {
    CHECK(run(backend, stream, rows, none, 4, {}).tokens == Values{1, -1, -1, -1});
    const Values drawn = run(backend, stream, rows, uniform, 4, {}).tokens;
    CHECK(drawn[0] >= 0);
    CHECK(Values(drawn.begin() + 1, drawn.end()) == Values{-1, -1, -1});
  });
}

TEST_CASE("drawn tokens follow their probabilities") {
  constexpr int64_t kDraws = 20000;
  const std::vector<float> logits = {1.0f, 0.0f, 2.0f, -1.0f, 0.5f};
  SamplingOptions options;
  options.top_k = 3;
  options.top_p = 1;
  options.temperature = 1;
  const Values given(logits.begin(), logits.end());
  const ExpectedTokens expected(given.data(), 5, {3, 1, 1});
  REQUIRE(expected.order.size() == 3);
  std::vector<float> rows;
  std::vector<nanovlm::Random> random;
  for (uint64_t i = 0; i < kDraws; ++i)
    random.emplace_back(7, i), rows.insert(rows.end(), logits.begin(), logits.end());
  std::vector<int> counts(logits.size());
  for (const int32_t token : sample(from_host(rows, {kDraws, 5}, Device::open("cpu")), options, random))
    ++counts[static_cast<size_t>(token)];
  for (size_t i = 0; i < 3; ++i) {
    const double p = expected.probabilities[i], deviation = std::sqrt(p * (1 - p) / kDraws);
    CHECK(std::abs(counts[static_cast<size_t>(expected.order[i])] / double{kDraws} - p) < 5 * deviation);
  }
  CHECK(counts[1] + counts[3] == 0);
}

TEST_CASE("sample() draws the same tokens on every device") {
  Random random(5);
  std::vector<float> logits;
  for (const double value : random.normal(6 * 200, DType::f32, 2).values()) logits.push_back(static_cast<float>(value));
  const auto tokens = [&](const Device& device) {
    std::vector<nanovlm::Random> streams;
    for (uint64_t r = 0; r < 6; ++r) streams.emplace_back(9, r);
    return sample(from_host(logits, {6, 200}, device), {}, streams);
  };
  const std::vector<int32_t> first = tokens(Device::open("cpu"));
  for (const Device& device : devices()) {
    INFO(device.name());
    CHECK(tokens(device) == first);
  }
}

TEST_CASE("sampling refuses what makes no sense") {
  SamplingOptions options;
  options.temperature = 0;
  CHECK_THROWS_WITH(options.validate(), contains("temperature is 0"));
  options.greedy = true;
  CHECK_NOTHROW(options.validate());
  options.top_p = 1.5;
  CHECK_THROWS_WITH(options.validate(), contains("top_p is 1.5"));
  for (const Device& device : devices()) {
    std::vector<nanovlm::Random> streams(2, nanovlm::Random(0));
    const Tensor broken = from_host(std::vector<float>{0, 1, 2, 0, std::nanf(""), 1}, {2, 3}, device);
    CHECK_THROWS_WITH(sample(broken, {}, streams), contains("row 1: a logit is not a number"));
    streams.resize(1, nanovlm::Random(0));
    CHECK_THROWS_WITH(sample(broken, {}, streams), contains("[2, 3]") && contains("1 streams"));
  }
}

}  // namespace
}  // namespace nanovlm::testing
