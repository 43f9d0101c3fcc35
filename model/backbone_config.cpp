// The settings of published backbones: transformers' SiglipVisionConfig and LlamaConfig. A file may leave out what
// equals its class's default, so the defaults here are those classes'.
#include "model/backbones.h"

#include <nlohmann/json.hpp>

#include "engine/json.h"

namespace nanovlm {
namespace {
using nlohmann::json;

// Collects what is wrong, so that all of it is said at once.
class Problems {
 public:
  template <class F>
  void collect(F&& f) {
    try {
      f();
    } catch (const Error& error) {
      text_ += text("\n  ", error.what());
    }
  }
  void finish() const { check(text_.empty(), "the backbones can't be used:", text_); }

 private:
  std::string text_;
};

// One object of a config.json.
class Settings {
 public:
  Settings(JsonValue object, Problems& problems) : object_(std::move(object)), problems_(problems) {}

  void read(const char* key, int64_t& field, int64_t otherwise) {
    field = otherwise;
    problems_.collect([&] {
      if (const auto value = object_.find(key)) field = value->integer();
    });
  }
  void read(const char* key, double& field, double otherwise) {
    field = otherwise;
    problems_.collect([&] {
      if (const auto value = object_.find(key)) field = value->number();
    });
  }
  // A setting with only one value that this model computes.
  void expect(const char* key, const json& only, const json& otherwise) {
    problems_.collect([&] {
      const auto value = object_.find(key);
      if ((value ? value->json() : otherwise) == only) return;
      if (value) value->refuse(only.dump());
      fail(object_.place(), ".", key, ": expected ", only.dump(), ", found none, which stands for ", otherwise.dump());
    });
  }
  const JsonValue& object() const { return object_; }

 private:
  JsonValue object_;
  Problems& problems_;
};

// SiglipModel's file nests the vision tower's settings, SiglipVisionModel's is these settings.
JsonValue vision_settings(const JsonValue& root, const json& none) {
  const std::string& type = root["model_type"].string();
  if (type == "siglip_vision_model") return root;
  if (type != "siglip") root["model_type"].refuse("siglip or siglip_vision_model");
  const auto nested = root.find("vision_config");
  if (nested) nested->expect_object();
  return nested ? *nested : JsonValue(none, root.place() + ".vision_config");
}

void take_vision(const VLMConfig& from, bool keep_img_size, VLMConfig& config) {
  config.vit_hidden_dim = from.vit_hidden_dim;
  config.vit_inter_dim = from.vit_inter_dim;
  config.vit_patch_size = from.vit_patch_size;
  if (!keep_img_size) config.vit_img_size = from.vit_img_size;
  config.vit_n_heads = from.vit_n_heads;
  config.vit_dropout = from.vit_dropout;
  config.vit_n_blocks = from.vit_n_blocks;
  config.vit_ln_eps = from.vit_ln_eps;
}

void configure_vision(const std::string& file, bool keep_img_size, VLMConfig& config, Problems& problems) {
  const json document = read_json_file(file, int64_t{1} << 24), none = json::object();
  if (document.is_object() && document.contains("vit_hidden_dim")) {  // nanoVLM's own
    std::vector<std::string> of_other_parts;
    return take_vision(parse_config(document, file, of_other_parts), keep_img_size, config);
  }
  Settings settings(vision_settings(JsonValue(document, file), none), problems);
  settings.read("attention_dropout", config.vit_dropout, 0.0);
  settings.read("hidden_size", config.vit_hidden_dim, 768);
  if (int64_t size = 0; !keep_img_size) {
    settings.read("image_size", size, 224);
    config.vit_img_size = size;
  }
  settings.read("intermediate_size", config.vit_inter_dim, 3072);
  settings.read("layer_norm_eps", config.vit_ln_eps, 1e-6);
  settings.read("num_attention_heads", config.vit_n_heads, 12);
  settings.read("num_hidden_layers", config.vit_n_blocks, 12);
  settings.read("patch_size", config.vit_patch_size, 16);
  settings.expect("hidden_act", "gelu_pytorch_tanh", "gelu_pytorch_tanh");
  settings.expect("num_channels", 3, 3);
}

// RoPE's base: a key of its own, or in rope_parameters as transformers 5 writes it. Scaled frequencies are refused,
// under the name that transformers gave their kind before 4.43 too.
void configure_rope(Settings& settings, VLMConfig& config, Problems& problems) {
  settings.read("rope_theta", config.lm_re_base, 10000.0);
  for (const char* key : {"rope_scaling", "rope_parameters"})
    problems.collect([&] {
      const auto rope = settings.object().find(key);
      if (!rope) return;
      rope->expect_object();
      Settings inner(*rope, problems);
      for (const char* kind : {"rope_type", "type"}) inner.expect(kind, "default", "default");
      inner.expect("factor", 1.0, 1.0);
      inner.read("rope_theta", config.lm_re_base, config.lm_re_base);
    });
}

void configure_language(const std::string& file, VLMConfig& config, Problems& problems) {
  const json document = read_json_file(file, int64_t{1} << 24);
  Settings settings(JsonValue(document, file), problems);
  settings.expect("model_type", "llama", nullptr);
  settings.read("hidden_size", config.lm_hidden_dim, 4096);
  settings.read("intermediate_size", config.lm_inter_dim, 11008);
  settings.read("rms_norm_eps", config.lm_rms_eps, 1e-6);
  settings.read("max_position_embeddings", config.lm_max_position_embeddings, 2048);
  settings.read("num_attention_heads", config.lm_n_heads, 32);
  settings.read("num_key_value_heads", config.lm_n_kv_heads, config.lm_n_heads);
  settings.read("num_hidden_layers", config.lm_n_blocks, 32);
  settings.read("attention_dropout", config.lm_dropout, 0.0);
  settings.expect("hidden_act", "silu", "silu");
  settings.expect("attention_bias", false, false);
  settings.expect("mlp_bias", false, false);
  configure_rope(settings, config, problems);

  int64_t vocabulary = 0, head_dim = 0;
  settings.read("vocab_size", vocabulary, 32000);
  const bool divides = config.lm_n_heads > 0 && config.lm_hidden_dim % config.lm_n_heads == 0;
  settings.read("head_dim", head_dim, divides ? config.lm_head_dim() : 0);
  problems.collect([&] {
    check(config.lm_vocab_size >= vocabulary, file, ": lm_vocab_size is ", config.lm_vocab_size,
          ", but must be at least the file's vocab_size, ", vocabulary);
  });
  problems.collect([&] {
    check(!divides || head_dim == config.lm_head_dim(), file,
          ": $.head_dim: expected hidden_size / num_attention_heads = ", divides ? config.lm_head_dim() : 0, ", found ",
          head_dim);
  });
}

}  // namespace

void configure_from(const Backbones& backbones, VLMConfig& config) {
  Problems problems;
  VLMConfig result = config;
  if (!backbones.vision.empty())
    problems.collect(
        [&] { configure_vision(backbones.vision + "/config.json", backbones.keep_img_size, result, problems); });
  if (!backbones.language.empty())
    problems.collect([&] { configure_language(backbones.language + "/config.json", result, problems); });
  problems.finish();
  // Where a divisor is 0, validate() is about to refuse it.
  if (result.vit_patch_size > 0 && result.mp_pixel_shuffle_factor > 0) {
    result.IMAGE_TOKEN_LENGTH = result.image_tokens();
    result.TOTAL_SEQUENCE_LENGTH = result.IMAGE_TOKEN_LENGTH + result.lm_max_length;
  }
  std::string where = "the configuration with the settings of";
  for (const std::string* folder : {&backbones.vision, &backbones.language})
    if (!folder->empty()) where += " " + *folder;
  result.validate(where);
  config = result;
}

}  // namespace nanovlm
