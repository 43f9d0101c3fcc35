#include "model/gguf_import.h"

#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>
#include <tuple>

#include <nlohmann/json.hpp>

#include "engine/file.h"
#include "engine/safetensors.h"

namespace nanovlm {
namespace {

// transformers' name and the shape of each tensor that the file must hold, by llama.cpp's name.
struct Expected {
  std::string theirs;
  Shape shape;
};
using Tensors = std::map<std::string, Expected>;

Tensors expected_tensors(const GgufFile& gguf) {
  const int64_t width = gguf.integer("llama.embedding_length"), inner = gguf.integer("llama.feed_forward_length");
  const int64_t heads = gguf.integer("llama.attention.head_count"), D = width / heads;
  const int64_t blocks = gguf.integer("llama.block_count"), stored = static_cast<int64_t>(gguf.entries().size());
  const auto tokens = static_cast<int64_t>(gguf.strings("tokenizer.ggml.tokens").size());
  const int64_t kv_width = gguf.integer("llama.attention.head_count_kv") * D;
  check(blocks > 0 && blocks <= stored, gguf.path(), ": llama.block_count: expected 1 to ", stored,
        ", the number of tensors, found ", blocks);
  Tensors all = {{"token_embd.weight", {"model.embed_tokens.weight", {tokens, width}}},
                 {"output_norm.weight", {"model.norm.weight", {width}}}};
  if (gguf.entries().count("output.weight")) all["output.weight"] = {"lm_head.weight", {tokens, width}};
  const std::tuple<const char*, const char*, Shape> parts[] = {
      {"attn_norm", "input_layernorm", {width}},         {"ffn_norm", "post_attention_layernorm", {width}},
      {"attn_q", "self_attn.q_proj", {width, width}},    {"attn_k", "self_attn.k_proj", {kv_width, width}},
      {"attn_v", "self_attn.v_proj", {kv_width, width}}, {"attn_output", "self_attn.o_proj", {width, width}},
      {"ffn_gate", "mlp.gate_proj", {inner, width}},     {"ffn_up", "mlp.up_proj", {inner, width}},
      {"ffn_down", "mlp.down_proj", {width, inner}},
  };
  for (int64_t i = 0; i < blocks; ++i)
    for (const auto& [part, theirs, shape] : parts)
      all[text("blk.", i, ".", part, ".weight")] = {text("model.layers.", i, ".", theirs, ".weight"), shape};
  return all;
}

void check_tensors(const GgufFile& gguf, const Tensors& expected) {
  for (const auto& [name, entry] : gguf.entries()) {
    check(expected.count(name) != 0, gguf.path(), ": tensor ", name,
          ": expected one of a Llama model without biases, found another");
    const Shape& shape = expected.at(name).shape;
    check(entry.shape == shape, gguf.path(), ": tensor ", name, ": expected ", shape, ", found ", entry.shape);
  }
  for (const auto& one : expected) gguf.entry(one.first);  // Error: absent
}

// Rows 2 i and 2 i + 1 of each head, a pair for interleaved RoPE, become rows i and D / 2 + i.
std::vector<float> in_halves(const std::vector<float>& rows, int64_t heads, int64_t width) {
  std::vector<float> result(rows.size());
  const int64_t D = static_cast<int64_t>(rows.size()) / width / heads;
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t i = 0; i < D; ++i) {
      const int64_t from = h * D + i, to = h * D + (i % 2) * (D / 2) + i / 2;
      std::copy_n(rows.begin() + from * width, width, result.begin() + to * width);
    }
  return result;
}

// A positive number; of an fp32 value the fewest digits that stand for it, which are those that a person wrote: 1e-05,
// where the float is 9.99999974e-06.
double as_written(const GgufFile& gguf, const char* key) {
  const double value = gguf.number(key);
  check(std::isfinite(value) && value > 0, gguf.path(), ": ", key, ": expected a positive number, found ", value);
  const auto narrow = static_cast<float>(value);
  if (narrow != value) return value;
  char digits[32];
  return std::stod(std::string(digits, std::to_chars(digits, digits + sizeof digits, narrow).ptr));
}

nlohmann::json llama_config(const GgufFile& gguf) {
  const auto integer = [&](const char* key) { return gguf.integer(key); };
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"bos_token_id", integer("tokenizer.ggml.bos_token_id")},
          {"eos_token_id", integer("tokenizer.ggml.eos_token_id")},
          {"head_dim", integer("llama.embedding_length") / integer("llama.attention.head_count")},
          {"hidden_act", "silu"},
          {"hidden_size", integer("llama.embedding_length")},
          {"intermediate_size", integer("llama.feed_forward_length")},
          {"max_position_embeddings", integer("llama.context_length")},
          {"mlp_bias", false},
          {"num_attention_heads", integer("llama.attention.head_count")},
          {"num_hidden_layers", integer("llama.block_count")},
          {"num_key_value_heads", integer("llama.attention.head_count_kv")},
          {"rms_norm_eps", as_written(gguf, "llama.attention.layer_norm_rms_epsilon")},
          {"rope_scaling", nullptr},
          {"rope_theta", as_written(gguf, "llama.rope.freq_base")},
          {"tie_word_embeddings", gguf.entries().count("output.weight") == 0},
          {"torch_dtype", "bfloat16"},
          {"vocab_size", gguf.entry("token_embd.weight").shape[0]}};
}

void check_heads(const GgufFile& gguf) {
  const int64_t width = gguf.integer("llama.embedding_length"), heads = gguf.integer("llama.attention.head_count");
  const int64_t kv_heads = gguf.integer("llama.attention.head_count_kv");
  check(heads > 0 && kv_heads > 0 && heads % kv_heads == 0 && width % (2 * heads) == 0, gguf.path(),
        ": llama.attention.head_count: expected heads of an even size that divide llama.embedding_length, in groups; "
        "found ",
        heads, " of ", width, ", in ", kv_heads, " groups");
}

// Only plain RoPE over whole heads is computed.
void check_rope(const GgufFile& gguf) {
  constexpr const char* type = "llama.rope.scaling.type";
  if (gguf.has(type))
    check(gguf.string(type) == "none", gguf.path(), ": ", type,
          ": expected none, for scaled RoPE is not supported, found ", gguf.string(type));
  for (const char* factor : {"llama.rope.scaling.factor", "llama.rope.scale_linear"})
    if (!gguf.has(type) && gguf.has(factor))
      check(gguf.number(factor) == 0 || gguf.number(factor) == 1, gguf.path(), ": ", factor,
            ": expected 1, for scaled RoPE is not supported, found ", gguf.number(factor));
  const int64_t D = gguf.integer("llama.embedding_length") / gguf.integer("llama.attention.head_count");
  for (const char* size : {"llama.rope.dimension_count", "llama.attention.key_length", "llama.attention.value_length"})
    if (gguf.has(size))
      check(gguf.integer(size) == D, gguf.path(), ": ", size, ": expected ", D, ", a head's size, found ",
            gguf.integer(size));
}

}  // namespace

GgufLanguageModel::GgufLanguageModel(const GgufFile& gguf) : gguf_(gguf) {
  const std::string& architecture = gguf.string("general.architecture");
  check(architecture == "llama", gguf.path(), ": general.architecture: expected llama, found ", architecture);
  check_heads(gguf);
  check_rope(gguf);
  const Tensors expected = expected_tensors(gguf);
  check_tensors(gguf, expected);
  for (const auto& [name, tensor] : expected) names_[name] = tensor.theirs;
  config_ = llama_config(gguf).dump(2) + "\n";
}

void GgufLanguageModel::write(const std::string& folder) const {
  const int64_t width = gguf_.integer("llama.embedding_length");
  const Device host = Device::open("cpu");
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const auto& [name, entry] : gguf_.entries()) {
    const std::string& theirs = names_.at(name);
    std::vector<float> values = gguf_.read_f32(name);
    for (const auto& [part, key] :
         {std::pair{"q_proj", "llama.attention.head_count"}, {"k_proj", "llama.attention.head_count_kv"}})
      if (theirs.find(part) != theirs.npos) values = in_halves(values, gguf_.integer(key), width);
    tensors.emplace_back(theirs, from_host(std::vector<bf16>(values.begin(), values.end()), entry.shape, host));
  }
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  check(!error, folder, ": can't be created: ", error.message());
  write_safetensors((std::filesystem::path(folder) / "model.safetensors").string(), tensors);
  write_file((std::filesystem::path(folder) / "config.json").string(), config_);
}

}  // namespace nanovlm
