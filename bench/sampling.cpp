// bench/sampling [--dir greedy,top_k,top_p] ...
//
// From a row of 49,152 logits a sequence to its next token: the largest; drawn with nanoVLM's filters (top-k 50, then
// top-p 0.9, temperature 0.5); drawn with top-p alone, which reads the row some 15 times, from the L2 cache. Least
// bytes: the logits once.
#include "kernels/sampling/sampling.h"

#include "bench/common/kernel_bench.h"
#include "tests/support/sampling_reference.h"

using namespace nanovlm;
using namespace nanovlm::bench;

namespace {

constexpr int64_t kVocabulary = 49152;

testing::Filters filters_of(const std::string& dir) {
  if (dir == "top_k") return {50, 0.9, 0.5};
  return {0, 0.9, 0.5};
}

struct Operands {
  std::string dir;
  int64_t R;
  Tensor logits, uniform, tokens, probabilities;

  Operands(const std::string& dir, int64_t R, const Device& device, uint64_t seed) : dir(dir), R(R) {
    Random random(seed);
    logits = normal({R, kVocabulary}, DType::f32, random, device, 2);
    std::vector<float> drawn;
    for (int64_t r = 0; r < R; ++r) drawn.push_back(static_cast<float>(random.uniform()));
    uniform = from_host(drawn, {R}, device), tokens = empty({R}, DType::i32, device);
    probabilities = empty_like(logits);
  }
  // As sample() calls it, or with the probabilities too.
  void run(bool all) const {
    const testing::Filters f = filters_of(dir);
    on(logits.device(), "sampling", [&](auto backend, Stream stream) {
      kernels::sampling(
          backend,
          {logits.f32(), dir == "greedy" ? nullptr : uniform.f32(), tokens.i32(), all ? probabilities.f32() : nullptr,
           R, kVocabulary, f.top_k, static_cast<float>(f.top_p), static_cast<float>(f.temperature)},
          stream);
    });
  }
  std::vector<Outcome> outcomes() const {
    const Values rows = values_of(logits), chosen = values_of(tokens);
    return dir == "greedy" ? largest_outcomes(rows, chosen) : drawn_outcomes(rows, chosen);
  }
  std::vector<Outcome> largest_outcomes(const Values& rows, const Values& chosen) const {
    Values exact;
    for (auto row = rows.begin(); row != rows.end(); row += kVocabulary)
      exact.push_back(static_cast<double>(std::max_element(row, row + kVocabulary) - row));
    return {{"token", chosen, exact, exact}};
  }
  // The token by where `uniform` lies for it, and the probabilities, which a run of their own writes.
  std::vector<Outcome> drawn_outcomes(const Values& rows, const Values& chosen) const {
    run(true);
    const Values at = values_of(uniform), none(at.size());
    Outcome shares{"probabilities", values_of(probabilities), {}, {}}, token{"token", {}, none, none};
    shares.terms = token.terms = testing::kSamplingRounding / 4 / std::numeric_limits<float>::epsilon();
    for (size_t r = 0; r < at.size(); ++r) {
      const testing::ExpectedTokens expected(&rows[r * kVocabulary], kVocabulary, filters_of(dir));
      const Values all = expected.spread(kVocabulary);
      shares.exact.insert(shares.exact.end(), all.begin(), all.end());
      token.got.push_back(expected.misses(static_cast<int64_t>(chosen[r]), at[r]));
    }
    shares.rounded = shares.exact;
    return {token, shares};
  }
};

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> directions = {"greedy", "top_k", "top_p"};
  KernelBench bench("sampling", directions);
  return bench.run(argc, argv, [&](const Request& request) {
    std::vector<Case> cases;
    const int64_t R = request.batch_or(64, 8, 1);
    for (const std::string& dir : directions) {
      Case c{"sampling", dir,
             DType::f32, {{"rows", R}, {"columns", kVocabulary}},
             0,          static_cast<double>(4 * R * kVocabulary)};
      c.full = 256.0 / static_cast<double>(R), c.sources = {"kernels/sampling/sampling.cu"};
      c.make = [=, device = request.device](uint64_t seed) -> Instance {
        const auto x = std::make_shared<Operands>(dir, R, device, seed);
        return {[x] { x->run(false); }, [x] { return x->outcomes(); }, {}};
      };
      const char* const reason = "lanes add to bins as their tokens have it, some in the same banks";
      if (dir == "top_p")
        c.excesses = {
            {"sampling", "wavefronts", 1.5, reason},
            {"sampling", "wavefronts of a line", 2.1, reason},
            {"sampling", "sectors", 1.2, "what is read again in later passes are single logits, from the L2 cache"}};
      cases.push_back(std::move(c));
    }
    return cases;
  });
}
