// Filters and probabilities against the reference's.
#include "model/sampling.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/golden.h"

using namespace nanovlm;
using namespace nanovlm::testing;

TEST_CASE("filters keep the reference's tokens, with its probabilities") {
  const SafetensorsFile file = SafetensorsFile::open(fixture("sampling/cases.safetensors"));
  const auto cases = nlohmann::json::parse(std::ifstream(fixture("sampling/cases.json")));
  REQUIRE(cases.size() > 10);
  for (const auto& c : cases) {
    const std::string name = "case" + std::to_string(c["case"].get<int>());
    INFO(name << " " << c.dump());
    const std::string source = c["logits"];
    const std::vector<float> logits = file.read_f32(source), probs = file.read_f32(name + ".probs");
    const std::vector<int64_t> keep = file.read_i64(name + ".keep");
    const size_t V = static_cast<size_t>(file.entry(source).shape[1]);
    SamplingOptions options;
    options.top_k = c["top_k"];
    options.top_p = c["top_p"];
    options.temperature = c["temperature"];
    for (size_t b = 0; b < logits.size() / V; ++b) {
      std::vector<float> ours(V, 0);
      size_t kept = 0;
      for (const Candidate& candidate : candidates({logits.data() + b * V, V}, options)) {
        ours[static_cast<size_t>(candidate.token)] = candidate.probability;
        ++kept;
      }
      size_t expected = 0;
      for (size_t i = 0; i < V; ++i) expected += keep[b * V + i] != 0;
      CHECK(kept == expected);
      // Among equal logits the reference's choice of whom to drop is the sort's; their probabilities are the same.
      std::vector<float> theirs(probs.begin() + static_cast<long>(b * V),
                                probs.begin() + static_cast<long>((b + 1) * V));
      std::sort(ours.begin(), ours.end());
      std::sort(theirs.begin(), theirs.end());
      CHECK(excess(ours, theirs, 1e-6, 0) <= 0);
    }
  }
}

TEST_CASE("greedy takes the largest logit") {
  const SafetensorsFile file = SafetensorsFile::open(fixture("sampling/cases.safetensors"));
  SamplingOptions greedy;
  greedy.greedy = true;
  for (const auto& [name, entry] : file.entries()) {
    if (!name.ends_with(".argmax")) continue;
    INFO(name);
    const std::string source = name.substr(0, name.size() - 7);
    const std::vector<float> logits = file.read_f32(source);
    const std::vector<int64_t> argmax = file.read_i64(name);
    const size_t V = logits.size() / argmax.size();
    Random random(0);
    for (size_t b = 0; b < argmax.size(); ++b) {
      const int32_t token = sample({logits.data() + b * V, V}, greedy, random);
      CHECK(logits[b * V + static_cast<size_t>(token)] == logits[b * V + static_cast<size_t>(argmax[b])]);
    }
  }
}

TEST_CASE("drawn tokens follow their probabilities") {
  const std::vector<float> logits = {1.0f, 0.0f, 2.0f, -1.0f, 0.5f};
  SamplingOptions options;
  options.top_k = 3;
  options.top_p = 1;
  options.temperature = 1;
  const auto expected = candidates(logits, options);
  REQUIRE(expected.size() == 3);
  std::vector<int> counts(logits.size());
  Random random(7);
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) ++counts[static_cast<size_t>(sample(logits, options, random))];
  for (const Candidate& c : expected) {
    const double p = c.probability, deviation = std::sqrt(p * (1 - p) / kDraws);
    CHECK(std::abs(static_cast<double>(counts[static_cast<size_t>(c.token)]) / kDraws - p) < 5 * deviation);
  }
  CHECK(counts[1] + counts[3] == 0);
}

TEST_CASE("sampling refuses what makes no sense") {
  SamplingOptions options;
  options.temperature = 0;
  CHECK_THROWS_WITH(options.validate(), Catch::Contains("temperature is 0"));
  options.greedy = true;
  CHECK_NOTHROW(options.validate());
  options.top_p = 1.5;
  CHECK_THROWS_WITH(options.validate(), Catch::Contains("top_p is 1.5"));
  Random random(0);
  const std::vector<float> broken = {0, std::nanf(""), 1};
  CHECK_THROWS_WITH(sample(broken, {}, random), Catch::Contains("not a number"));
}
