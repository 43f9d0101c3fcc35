// config.json: nanoVLM's own files, and what is refused.
#include "model/config.h"

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "engine/device.h"
#include "engine/json.h"
#include "model/vision_language_model.h"
#include "tests/support/golden.h"

using namespace nanovlm;
using namespace nanovlm::testing;

namespace {

// The message that a configuration with one changed field is refused with.
std::string refusal(const std::string& key, const nlohmann::json& value) {
  nlohmann::json document = parse_json(to_json_text({}), "defaults");
  document[key] = value;
  std::vector<std::string> warnings;
  try {
    parse_config(document, "config.json", warnings);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("the default configuration is nanoVLM's 222M model") {
  const VLMConfig config;
  CHECK_NOTHROW(config.validate("default"));
  CHECK(config.parameter_count() == 222081600);
  CHECK(config.image_tokens() == 49);
  CHECK(config.lm_head_dim() == 64);
}

TEST_CASE("nanoVLM's files are read, and written as nanoVLM writes them") {
  for (const std::string name : {"tiny-v1/base", "tiny-v1/untied", "tiny-v1/rope-scaled", "full-v1"}) {
    INFO(name);
    std::vector<std::string> warnings;
    const VLMConfig config = load_config(fixture(name), warnings);
    CHECK(warnings.empty());
    std::ifstream file(fixture(name) + "/config.json");
    const std::string original((std::istreambuf_iterator<char>(file)), {});
    CHECK(nlohmann::ordered_json::parse(to_json_text(config)) == nlohmann::ordered_json::parse(original));
  }
}

TEST_CASE("wrong values are refused with field, value and rule") {
  CHECK_THAT(refusal("vit_n_heads", 7), contains("vit_hidden_dim is 768") && contains("vit_n_heads = 7"));
  CHECK_THAT(refusal("lm_n_kv_heads", 2), contains("lm_n_heads is 9") && contains("multiple"));
  CHECK_THAT(refusal("lm_n_heads", 0), contains("lm_n_heads is 0"));
  CHECK_THAT(refusal("vit_patch_size", 0), contains("vit_patch_size is 0"));
  CHECK_THAT(refusal("vit_patch_size", 300), contains("vit_img_size is 224"));
  CHECK_THAT(refusal("mp_pixel_shuffle_factor", 3), contains("mp_pixel_shuffle_factor is 3") && contains("14"));
  CHECK_THAT(refusal("lm_vocab_size", -1), contains("lm_vocab_size is -1"));
  CHECK_THAT(refusal("lm_vocab_size", int64_t{1} << 40), contains("lm_vocab_size"));
  CHECK_THAT(refusal("lm_eos_token_id", 49152), contains("lm_eos_token_id is 49152"));
  CHECK_THAT(refusal("lm_rms_eps", 0.0), contains("lm_rms_eps is 0"));
  CHECK_THAT(refusal("lm_rms_eps", 1e-50), contains("lm_rms_eps is 1e-50") && contains("1.17549e-38 to 3.40282e+38"));
  CHECK_THAT(refusal("vit_ln_eps", 1e-39), contains("vit_ln_eps is 1e-39"));
  CHECK_THAT(refusal("lm_attn_scaling", 1e39), contains("lm_attn_scaling is 1e+39"));
  CHECK_THAT(refusal("lm_re_base", -1.0), contains("lm_re_base is -1"));
  CHECK(refusal("lm_rms_eps", 1.2e-38).empty());
  CHECK_THAT(refusal("vit_dropout", 1.5), contains("vit_dropout is 1.5"));
  CHECK_THAT(refusal("vit_cls_flag", true), contains("vit_cls_flag"));
  CHECK_THAT(refusal("lm_hidden_dim", 567), contains("lm_hidden_dim / lm_n_heads is 63"));
  CHECK_THAT(refusal("vit_hidden_dim", "768"), contains("$.vit_hidden_dim") && contains("integer"));
  CHECK_THAT(refusal("lm_tie_weights", 1), contains("$.lm_tie_weights"));
  CHECK_THAT(refusal("lm_re_base", nullptr), contains("$.lm_re_base"));
}

TEST_CASE("all wrong values are listed at once") {
  nlohmann::json document = parse_json(to_json_text({}), "defaults");
  document["vit_n_heads"] = 7;
  document["lm_n_kv_heads"] = 2;
  std::vector<std::string> warnings;
  CHECK_THROWS_WITH(parse_config(document, "x", warnings),
                    contains("vit_n_heads = 7") && contains("lm_n_kv_heads = 2"));
}

TEST_CASE("an unknown key is a warning, a missing one its default") {
  std::vector<std::string> warnings;
  const VLMConfig config = parse_config(parse_json("{\"colour\": 3}", "x"), "x", warnings);
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0], contains("\"colour\""));
  CHECK(config.lm_n_blocks == 30);
}

TEST_CASE("a number of picture tokens that nanoVLM never reads may be wrong") {
  nlohmann::json document = parse_json(to_json_text({}), "defaults");
  document["vit_img_size"] = 256;  // as nanoVLM writes it after a backbone of that size
  std::vector<std::string> warnings;
  CHECK(parse_config(document, "x", warnings).IMAGE_TOKEN_LENGTH == 64);
  REQUIRE(warnings.size() == 2);
  CHECK_THAT(warnings[0], contains("IMAGE_TOKEN_LENGTH is 49") && contains("is 64, which is used"));
  CHECK_THAT(warnings[1], contains("TOTAL_SEQUENCE_LENGTH is 128") && contains("143"));
}

TEST_CASE("a configuration is refused before anything is allocated") {
  VLMConfig config;
  config.lm_n_kv_heads = 2;
  const Device device = Device::open("cpu");
  CHECK_THROWS_WITH(VisionLanguageModel(config, device), contains("lm_n_kv_heads"));
  CHECK(device.context().memory.report().peak == 0);
}
