// The model's configuration: nanoVLM's VLMConfig, its field names, defaults, order and file format.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace nanovlm {

struct VLMConfig {
  int64_t vit_hidden_dim = 768;
  int64_t vit_inter_dim = 3072;
  int64_t vit_patch_size = 16;
  int64_t vit_img_size = 224;
  int64_t vit_n_heads = 12;
  double vit_dropout = 0.0;
  int64_t vit_n_blocks = 12;
  double vit_ln_eps = 1e-6;
  bool vit_cls_flag = false;
  std::string vit_model_type = "google/siglip-base-patch16-224";

  int64_t lm_hidden_dim = 576;
  int64_t lm_inter_dim = 1536;
  double lm_rms_eps = 1e-5;
  double lm_re_base = 100000;
  int64_t lm_max_position_embeddings = 8192;
  int64_t lm_vocab_size = 49152;
  int64_t lm_n_heads = 9;
  int64_t lm_n_kv_heads = 3;
  double lm_dropout = 0.0;
  int64_t lm_n_blocks = 30;
  double lm_attn_scaling = 1.0;  // multiplies cos and sin of RoPE
  int64_t IMAGE_TOKEN_LENGTH = 49;
  int64_t TOTAL_SEQUENCE_LENGTH = 128;
  int64_t lm_max_length = 79;
  bool lm_use_tokens = false;
  bool lm_tie_weights = true;
  std::string lm_model_type = "HuggingFaceTB/SmolLM2-135M";
  std::string lm_tokenizer = "HuggingFaceTB/cosmo2-tokenizer";
  int64_t lm_eos_token_id = 0;

  int64_t mp_pixel_shuffle_factor = 2;

  bool vlm_load_backbone_weights = true;
  std::string vlm_checkpoint_path = "checkpoints/nanoVLM-222M";
  std::string hf_repo_name = "nanoVLM";  // empty stands for null

  // Numbers that follow from the fields.
  int64_t vit_head_dim() const { return vit_hidden_dim / vit_n_heads; }
  int64_t lm_head_dim() const { return lm_hidden_dim / lm_n_heads; }
  int64_t patches_per_side() const { return vit_img_size / vit_patch_size; }
  int64_t patches() const { return patches_per_side() * patches_per_side(); }
  int64_t image_tokens() const;  // after pixel shuffle
  int64_t mp_input_dim() const { return vit_hidden_dim * mp_pixel_shuffle_factor * mp_pixel_shuffle_factor; }
  int64_t parameter_count() const;

  // Every field in the file's order, as f(name, field): parse, print, flags and save all walk this list.
  template <class F>
  void fields(F&& f);
  template <class F>
  void fields(F&& f) const {
    const_cast<VLMConfig*>(this)->fields(f);
  }

  // Throws one Error that lists every field whose value breaks a rule, each with value and rule. `where` leads the
  // message.
  void validate(const std::string& where) const;
};

// Reads config.json (or a folder that holds one) and settles it. A missing key keeps its default, an unknown one adds
// a line to `warnings`. Errors name file, field, expected and found.
VLMConfig load_config(const std::string& path, std::vector<std::string>& warnings);
VLMConfig parse_config(const nlohmann::json& document, const std::string& where, std::vector<std::string>& warnings);

// Its two steps, for a configuration that others overwrite in between. Settling validates. IMAGE_TOKEN_LENGTH follows
// from other fields, but nanoVLM's files keep the default when a backbone has another picture size, and its model never
// reads it: a wrong one is mended, with a warning.
VLMConfig read_config(const nlohmann::json& document, const std::string& where, std::vector<std::string>& warnings);
void settle_config(VLMConfig& config, const std::string& where, std::vector<std::string>& warnings);

std::string to_json_text(const VLMConfig& config);  // as nanoVLM writes it: indent 4

template <class F>
void VLMConfig::fields(F&& f) {
  f("vit_hidden_dim", vit_hidden_dim);
  f("vit_inter_dim", vit_inter_dim);
  f("vit_patch_size", vit_patch_size);
  f("vit_img_size", vit_img_size);
  f("vit_n_heads", vit_n_heads);
  f("vit_dropout", vit_dropout);
  f("vit_n_blocks", vit_n_blocks);
  f("vit_ln_eps", vit_ln_eps);
  f("vit_cls_flag", vit_cls_flag);
  f("vit_model_type", vit_model_type);
  f("lm_hidden_dim", lm_hidden_dim);
  f("lm_inter_dim", lm_inter_dim);
  f("lm_rms_eps", lm_rms_eps);
  f("lm_re_base", lm_re_base);
  f("lm_max_position_embeddings", lm_max_position_embeddings);
  f("lm_vocab_size", lm_vocab_size);
  f("lm_n_heads", lm_n_heads);
  f("lm_n_kv_heads", lm_n_kv_heads);
  f("lm_dropout", lm_dropout);
  f("lm_n_blocks", lm_n_blocks);
  f("lm_attn_scaling", lm_attn_scaling);
  f("IMAGE_TOKEN_LENGTH", IMAGE_TOKEN_LENGTH);
  f("TOTAL_SEQUENCE_LENGTH", TOTAL_SEQUENCE_LENGTH);
  f("lm_max_length", lm_max_length);
  f("lm_use_tokens", lm_use_tokens);
  f("lm_tie_weights", lm_tie_weights);
  f("lm_model_type", lm_model_type);
  f("lm_tokenizer", lm_tokenizer);
  f("lm_eos_token_id", lm_eos_token_id);
  f("mp_pixel_shuffle_factor", mp_pixel_shuffle_factor);
  f("vlm_load_backbone_weights", vlm_load_backbone_weights);
  f("vlm_checkpoint_path", vlm_checkpoint_path);
  f("hf_repo_name", hf_repo_name);
}

}  // namespace nanovlm
