#include "model/gguf_import.h"

#include <filesystem>

#include <nlohmann/json.hpp>

#include "engine/file.h"
#include "engine/safetensors.h"

namespace nanovlm {
namespace {

constexpr std::pair<const char*, const char*> kTop[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};
constexpr std::pair<const char*, const char*> kBlock[] = {
    {"attn_norm.weight", "input_layernorm.weight"}, {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight"},   {"attn_k.weight", "self_attn.k_proj.weight"},
    {"attn_v.weight", "self_attn.v_proj.weight"},   {"attn_output.weight", "self_attn.o_proj.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
};

// transformers' name of a tensor called blk.<i>.<part> or by a name of its own.
std::string published_name(const std::string& path, const std::string& name) {
  const std::string prefix = "blk.";
  const size_t dot = name.find('.', prefix.size());
  if (name.starts_with(prefix) && dot != name.npos) {
    for (const auto& [part, theirs] : kBlock)
      if (name.substr(dot + 1) == part) return "model.layers." + name.substr(4, dot - 4) + "." + theirs;
  } else {
    for (const auto& [own, theirs] : kTop)
      if (name == own) return theirs;
  }
  fail(path, ": tensor ", name, ": expected one of a Llama model without biases, found another");
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

// fp32 values as the fewest digits that a person wrote: 1e-05, where the file's float is 9.99999974e-06.
double as_written(double value) { return std::stod(text(value)); }

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
          {"rms_norm_eps", as_written(gguf.number("llama.attention.layer_norm_rms_epsilon"))},
          {"rope_scaling", nullptr},
          {"rope_theta", as_written(gguf.number("llama.rope.freq_base"))},
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

}  // namespace

void write_language_model(const GgufFile& gguf, const std::string& folder) {
  const std::string& architecture = gguf.string("general.architecture");
  check(architecture == "llama", gguf.path(), ": general.architecture: expected llama, found ", architecture);
  check_heads(gguf);
  const int64_t width = gguf.integer("llama.embedding_length");
  const nlohmann::json config = llama_config(gguf);

  const Device host = Device::open("cpu");
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const auto& [name, entry] : gguf.entries()) {
    const std::string theirs = published_name(gguf.path(), name);
    std::vector<float> values = gguf.read_f32(name);
    for (const auto& [part, key] :
         {std::pair{"q_proj", "llama.attention.head_count"}, {"k_proj", "llama.attention.head_count_kv"}}) {
      if (theirs.find(part) == theirs.npos) continue;
      const int64_t heads = gguf.integer(key), D = width / gguf.integer("llama.attention.head_count");
      check(entry.shape == Shape{heads * D, width}, gguf.path(), ": tensor ", name, ": expected ",
            Shape{heads * D, width}, ", found ", entry.shape);
      values = in_halves(values, heads, width);
    }
    tensors.emplace_back(theirs, from_host(std::vector<bf16>(values.begin(), values.end()), entry.shape, host));
  }
  write_safetensors((std::filesystem::path(folder) / "model.safetensors").string(), tensors);
  write_file((std::filesystem::path(folder) / "config.json").string(), config.dump(2) + "\n");
}

}  // namespace nanovlm
