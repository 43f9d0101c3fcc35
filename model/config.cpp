#include "model/config.h"

#include <sys/stat.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/error.h"
#include "engine/json.h"

namespace nanovlm {
namespace {

// Far above any model of this kind, and small enough that products of two sizes cannot overflow.
constexpr int64_t kLargestSize = int64_t{1} << 20;
constexpr int64_t kMostParameters = int64_t{1} << 50;

void read_field(const JsonValue& value, int64_t& field) { field = value.integer(); }
void read_field(const JsonValue& value, double& field) { field = value.number(); }
void read_field(const JsonValue& value, bool& field) { field = value.boolean(); }
void read_field(const JsonValue& value, std::string& field) { field = value.is_null() ? "" : value.string(); }

// Collects every broken rule, so that a user mends the file once.
class Rules {
 public:
  void in_range(const char* name, int64_t value, int64_t low, int64_t high) {
    rule(value >= low && value <= high, name, value, text("must be ", low, " to ", high));
  }
  template <class T>
  void rule(bool ok, const char* name, const T& value, const std::string& rule) {
    if (!ok) problems_ += text("\n  ", name, " is ", value, ", but ", rule);
  }
  bool ok() const { return problems_.empty(); }
  void finish(const std::string& where) const { check(ok(), where, ": not a usable configuration:", problems_); }

 private:
  std::string problems_;
};

void check_sizes(const VLMConfig& c, Rules& rules) {
  rules.in_range("vit_hidden_dim", c.vit_hidden_dim, 1, kLargestSize);
  rules.in_range("vit_inter_dim", c.vit_inter_dim, 1, kLargestSize);
  rules.in_range("vit_patch_size", c.vit_patch_size, 1, 1024);
  rules.in_range("vit_img_size", c.vit_img_size, 1, 8192);
  rules.in_range("vit_n_heads", c.vit_n_heads, 1, 4096);
  rules.in_range("vit_n_blocks", c.vit_n_blocks, 0, 4096);
  rules.in_range("lm_hidden_dim", c.lm_hidden_dim, 1, kLargestSize);
  rules.in_range("lm_inter_dim", c.lm_inter_dim, 1, kLargestSize);
  rules.in_range("lm_max_position_embeddings", c.lm_max_position_embeddings, 1, int64_t{1} << 30);
  rules.in_range("lm_vocab_size", c.lm_vocab_size, 1, int64_t{1} << 24);
  rules.in_range("lm_n_heads", c.lm_n_heads, 1, 4096);
  rules.in_range("lm_n_kv_heads", c.lm_n_kv_heads, 1, 4096);
  rules.in_range("lm_n_blocks", c.lm_n_blocks, 0, 4096);
  rules.in_range("lm_max_length", c.lm_max_length, 1, int64_t{1} << 24);
  rules.in_range("TOTAL_SEQUENCE_LENGTH", c.TOTAL_SEQUENCE_LENGTH, 1, int64_t{1} << 24);
  rules.in_range("mp_pixel_shuffle_factor", c.mp_pixel_shuffle_factor, 1, 1024);
}

// Rules between fields; these divide, so they run only once the sizes are known to be sound.
void check_relations(const VLMConfig& c, Rules& rules) {
  rules.rule(c.vit_hidden_dim % c.vit_n_heads == 0, "vit_hidden_dim", c.vit_hidden_dim,
             text("must be a multiple of vit_n_heads = ", c.vit_n_heads));
  rules.rule(c.vit_img_size >= c.vit_patch_size, "vit_img_size", c.vit_img_size,
             text("must be at least vit_patch_size = ", c.vit_patch_size));
  rules.rule(c.lm_hidden_dim % c.lm_n_heads == 0, "lm_hidden_dim", c.lm_hidden_dim,
             text("must be a multiple of lm_n_heads = ", c.lm_n_heads));
  rules.rule(c.lm_hidden_dim % c.lm_n_heads != 0 || c.lm_head_dim() % 2 == 0, "lm_hidden_dim / lm_n_heads",
             c.lm_head_dim(), "must be even for RoPE");
  rules.rule(c.lm_n_heads % c.lm_n_kv_heads == 0, "lm_n_heads", c.lm_n_heads,
             text("must be a multiple of lm_n_kv_heads = ", c.lm_n_kv_heads));
  rules.rule(c.patches_per_side() % c.mp_pixel_shuffle_factor == 0, "mp_pixel_shuffle_factor",
             c.mp_pixel_shuffle_factor,
             text("must divide the patches of a side, vit_img_size / vit_patch_size = ", c.patches_per_side()));
  rules.rule(c.patches_per_side() % c.mp_pixel_shuffle_factor != 0 || c.IMAGE_TOKEN_LENGTH == c.image_tokens(),
             "IMAGE_TOKEN_LENGTH", c.IMAGE_TOKEN_LENGTH,
             text("must be (vit_img_size / vit_patch_size / mp_pixel_shuffle_factor)^2 = ", c.image_tokens()));
  rules.rule(c.lm_eos_token_id >= 0 && c.lm_eos_token_id < c.lm_vocab_size, "lm_eos_token_id", c.lm_eos_token_id,
             text("must be a token: 0 to lm_vocab_size - 1 = ", c.lm_vocab_size - 1));
  // Bytes of weights and moments are counted in 64 bits.
  rules.rule(c.parameter_count() <= kMostParameters, "the number of parameters", c.parameter_count(),
             text("must be at most ", kMostParameters));
}

void check_numbers(const VLMConfig& c, Rules& rules) {
  // The kernels compute in fp32, where a smaller number is 0 and a larger one infinite.
  const auto positive = [&](const char* name, double value) {
    using Range = std::numeric_limits<float>;
    rules.rule(value >= Range::min() && value <= Range::max(), name, value,
               text("must be a normal number of fp32 above 0: ", Range::min(), " to ", Range::max()));
  };
  positive("vit_ln_eps", c.vit_ln_eps);
  positive("lm_rms_eps", c.lm_rms_eps);
  positive("lm_re_base", c.lm_re_base);
  positive("lm_attn_scaling", c.lm_attn_scaling);
  for (const auto& [name, value] : {std::pair{"vit_dropout", c.vit_dropout}, {"lm_dropout", c.lm_dropout}})
    rules.rule(value >= 0 && value <= 1, name, value, "must be 0 to 1");
  rules.rule(!c.vit_cls_flag, "vit_cls_flag", "true", "must be false: a class token leaves no grid to shuffle");
  rules.rule(!c.lm_use_tokens, "lm_use_tokens", "true", "must be false: the model feeds embeddings to the decoder");
}

}  // namespace

int64_t VLMConfig::image_tokens() const {
  const int64_t side = patches_per_side() / mp_pixel_shuffle_factor;
  return side * side;
}

int64_t VLMConfig::parameter_count() const {
  const int64_t C = vit_hidden_dim, L = lm_hidden_dim, kv = lm_head_dim() * lm_n_kv_heads;
  const int64_t vit_block = 4 * C + (3 * C * C + 3 * C) + (C * C + C) + 2 * C * vit_inter_dim + vit_inter_dim + C;
  const int64_t vit = 3 * vit_patch_size * vit_patch_size * C + C + patches() * C + vit_n_blocks * vit_block + 2 * C;
  const int64_t lm_block = 2 * L + 2 * L * L + 2 * L * kv + 3 * L * lm_inter_dim;
  const int64_t lm = lm_vocab_size * L * (lm_tie_weights ? 1 : 2) + lm_n_blocks * lm_block + L;
  return vit + lm + mp_input_dim() * L;
}

void VLMConfig::validate(const std::string& where) const {
  Rules rules;
  check_sizes(*this, rules);
  if (rules.ok()) check_relations(*this, rules);
  check_numbers(*this, rules);
  rules.finish(where);
}

VLMConfig read_config(const nlohmann::json& document, const std::string& where, std::vector<std::string>& warnings) {
  const JsonValue root(document, where);
  root.expect_object();
  VLMConfig config;
  std::set<std::string> known;
  config.fields([&](const char* name, auto& field) {
    known.insert(name);
    if (document.contains(name)) read_field(root[name], field);
  });
  for (const auto& item : document.items())
    if (!known.contains(item.key())) warnings.push_back(text(where, ": unknown key \"", item.key(), "\" is ignored"));
  return config;
}

void settle_config(VLMConfig& config, const std::string& where, std::vector<std::string>& warnings) {
  Rules sizes;
  check_sizes(config, sizes);
  if (sizes.ok() && config.IMAGE_TOKEN_LENGTH != config.image_tokens()) {
    warnings.push_back(text(where, ": IMAGE_TOKEN_LENGTH is ", config.IMAGE_TOKEN_LENGTH,
                            ", but (vit_img_size / vit_patch_size / mp_pixel_shuffle_factor)^2 is ",
                            config.image_tokens(), ", which is used"));
    config.IMAGE_TOKEN_LENGTH = config.image_tokens();
  }
  config.validate(where);
  if (config.lm_max_length + config.IMAGE_TOKEN_LENGTH != config.TOTAL_SEQUENCE_LENGTH)
    warnings.push_back(text(where, ": TOTAL_SEQUENCE_LENGTH is ", config.TOTAL_SEQUENCE_LENGTH,
                            ", but lm_max_length + IMAGE_TOKEN_LENGTH is ",
                            config.lm_max_length + config.IMAGE_TOKEN_LENGTH, "; the latter two are used"));
}

VLMConfig parse_config(const nlohmann::json& document, const std::string& where, std::vector<std::string>& warnings) {
  VLMConfig config = read_config(document, where, warnings);
  settle_config(config, where, warnings);
  return config;
}

VLMConfig load_config(const std::string& path, std::vector<std::string>& warnings) {
  struct stat info {};
  const bool folder = stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
  const std::string file = folder ? path + "/config.json" : path;
  return parse_config(read_json_file(file, int64_t{1} << 20), file, warnings);
}

std::string to_json_text(const VLMConfig& config) {
  nlohmann::ordered_json document;
  config.fields([&](const char* name, const auto& field) {
    if constexpr (std::is_same_v<std::decay_t<decltype(field)>, std::string>) {
      document[name] = field.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(field);
    } else if constexpr (std::is_same_v<std::decay_t<decltype(field)>, double>) {
      // RoPE's base is an int in nanoVLM's file.
      const bool whole = std::string(name) == "lm_re_base" && field == std::floor(field);
      document[name] = whole ? nlohmann::ordered_json(static_cast<int64_t>(field)) : nlohmann::ordered_json(field);
    } else {
      document[name] = field;
    }
  });
  // Bytes that are no UTF-8 (in a path) are replaced: better than a model that can't be saved.
  return document.dump(4, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace nanovlm
