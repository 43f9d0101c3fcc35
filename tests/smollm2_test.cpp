// SmolLM2-135M-Instruct, when it is there: every greedy token as transformers chooses it (tests/fixtures/smollm2).
//
//     scripts/smollm2.sh && NANOVLM_SMOLLM2=out/smollm2 build/release/tests/smollm2_test
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "data/tokenizer.h"
#include "engine/autograd.h"
#include "model/backbones.h"
#include "tests/support/catch.h"
#include "tests/support/folder.h"
#include "tests/support/golden.h"
#include "tests/support/skip.h"

using namespace nanovlm;
using namespace nanovlm::testing;

namespace {

constexpr double kTie = 1e-2;  // closer logits than these may change places by rounding

// The language model of `folder` beside the smallest vision encoder.
VisionLanguageModel load(const std::string& folder) {
  VLMConfig config;
  config.vit_hidden_dim = config.vit_inter_dim = 16;
  config.vit_n_heads = config.vit_n_blocks = 1;
  config.vit_img_size = 32, config.IMAGE_TOKEN_LENGTH = 1;
  configure_from({{}, folder}, config);
  VisionLanguageModel model(config, Device::open("cpu"));
  std::vector<std::string> notes;
  load_backbones({{}, folder}, model, 0, notes);
  return model;
}

// Logits [T, V] after each of the ids.
Tensor logits_of(const LanguageModel& decoder, const std::vector<int32_t>& ids) {
  const Device device = Device::open("cpu");
  const auto T = static_cast<int64_t>(ids.size());
  const Segments text = {from_host<int32_t>({0, static_cast<int32_t>(T)}, {2}, device), T, {}, {}};
  return decoder.logits(decoder(embedding(decoder.token_embedding, ids), text, decoder.rotary_embd(T, device), {}), {});
}

}  // namespace

TEST_CASE("SmolLM2 chooses transformers' greedy tokens") {
  const char* folder = std::getenv("NANOVLM_SMOLLM2");
  if (!folder || !*folder) {
    note_skipped("NANOVLM_SMOLLM2 does not name the folder that scripts/smollm2.sh makes");
    return;
  }
  const VisionLanguageModel model = load(folder);
  const NoGrad no_grad(model.device());
  const Tokenizer tokenizer = Tokenizer::load(folder);
  const auto prompts = nlohmann::json::parse(bytes_of(fixture("smollm2/greedy.json")));
  const SafetensorsFile golden = SafetensorsFile::open(fixture("smollm2/first_logits.safetensors"));
  const std::vector<float> first = golden.read_f32("logits");
  const int64_t V = model.config.lm_vocab_size, sampled = golden.entry("logits").shape[1];
  for (size_t p = 0; p < prompts.size(); ++p) {
    const nlohmann::json& prompt = prompts[p];
    INFO(prompt.at("prompt"));
    std::vector<int32_t> ids = tokenizer.encode(prompt.at("prompt").get<std::string>());
    REQUIRE(ids == prompt.at("prompt_ids").get<std::vector<int32_t>>());
    const auto expected = prompt.at("output_ids").get<std::vector<int32_t>>();
    const size_t begin = ids.size() - 1;
    ids.insert(ids.end(), expected.begin(), expected.end() - 1);

    // A token that is the likeliest after the ones before it is what greedy choice gives, so one pass checks them all.
    const std::vector<float> logits = to_host(logits_of(model.decoder, ids));
    for (size_t i = 0; i < expected.size(); ++i) {
      const auto row = logits.begin() + static_cast<int64_t>(begin + i) * V;
      const auto likeliest = std::max_element(row, row + V) - row;
      const double gap = prompt.at("top2_gap")[i];
      if (likeliest != expected[i] && gap <= kTie) break;
      INFO("token " << i << ", with the two best logits " << gap << " apart");
      CHECK(likeliest == expected[i]);
    }
    double largest_error = 0;
    for (int64_t i = 0; i < sampled; ++i) {
      const double error = std::abs(logits[begin * static_cast<size_t>(V) + static_cast<size_t>(8 * i)] -
                                    first[p * static_cast<size_t>(sampled) + static_cast<size_t>(i)]);
      largest_error = std::isnan(error) ? INFINITY : std::max(largest_error, error);
    }
    CHECK(largest_error <= 1e-2);
  }
}
