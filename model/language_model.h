// The decoder: a Llama-style transformer (RMSNorm, RoPE, grouped-query attention, SwiGLU), as SmolLM2.
#pragma once
#include <vector>

#include "model/config.h"
#include "model/layers.h"

namespace nanovlm {

// cos and sin for positions 0 .. length - 1, times lm_attn_scaling. Where length exceeds lm_max_position_embeddings the
// frequencies are divided by their ratio, as nanoVLM does.
struct RotaryEmbedding {
  int64_t head_dim;
  double base, attn_scaling;
  int64_t max_positions;

  RopeTable operator()(int64_t length, const Device& device) const;
  std::vector<float> inv_freq() const;  // [D / 2], the buffer nanoVLM keeps in its checkpoints
};

// Rotated keys and values of B sequences for one block, with room for `capacity` tokens each.
struct BlockCache {
  Tensor k, v;  // [B, capacity, G * D]
};
struct KvCache {
  std::vector<BlockCache> blocks;
  std::vector<int32_t> lengths;  // [B] tokens in use
  int64_t capacity = 0;
};

// Where new rows go, while a cache is being filled or read.
struct CacheStep {
  BlockCache* cache;
  Tensor rows;     // [R] i32: row of [B * capacity] for each new key
  Tensor lengths;  // [B] i32 after this step, for a step of one token a sequence; undefined: a prefill
  int64_t capacity;
};

struct LanguageModelGroupedQueryAttention {
  Heads heads;
  Linear q_proj, k_proj, v_proj, out_proj;

  // [R, L] -> [R, L]
  Tensor operator()(const Tensor& x, const RopeTable& rope, const Segments& texts, const Forward& run,
                    const CacheStep* step) const;

  template <class V>
  void parameters(V&& v) {
    v("q_proj", q_proj), v("k_proj", k_proj), v("v_proj", v_proj), v("out_proj", out_proj);
  }
};

struct LanguageModelMLP {
  Linear gate_proj, up_proj, down_proj;

  Tensor operator()(const Tensor& x, const Forward& run) const {
    if (x.device().context().record_gradients) return down_proj(swiglu(joined(x, run, gate_proj, up_proj)), run);
    const auto [gate, up] = each_of(x, run, gate_proj, up_proj);
    return down_proj(swiglu(gate, up), run);
  }

  template <class V>
  void parameters(V&& v) {
    v("gate_proj", gate_proj), v("up_proj", up_proj), v("down_proj", down_proj);
  }
};

// Pre-norm transformer block. The stream comes in and goes out as a sum not yet taken.
struct LanguageModelBlock {
  RmsNorm norm1, norm2;
  LanguageModelGroupedQueryAttention attn;
  LanguageModelMLP mlp;

  Residual operator()(const Residual& in, const RopeTable& rope, const Segments& texts, const Forward& run,
                      const CacheStep* step, const std::string& name) const;

  template <class V>
  void parameters(V&& v) {
    v("mlp", mlp), v("attn", attn), v("norm1", norm1), v("norm2", norm2);
  }
};

struct LanguageModel {
  Tensor token_embedding;  // [V, L]
  RotaryEmbedding rotary_embd;
  std::vector<LanguageModelBlock> blocks;
  RmsNorm norm;
  Tensor head;  // [V, L]; the very tensor token_embedding where the weights are tied

  LanguageModel(const VLMConfig& config, const Device& device);
  bool tied() const { return head.data() == token_embedding.data(); }

  // Embeddings [R, L] f32 -> what the head reads [R, L]. `rope` covers every position of `texts`.
  Tensor operator()(const Tensor& embeddings, const Segments& texts, const RopeTable& rope, const Forward& run,
                    KvCache* cache = nullptr, const Tensor& cache_rows = {}, const Tensor& cache_lengths = {}) const;

  // [R, L] -> [R, V] f32
  Tensor logits(const Tensor& h, const Forward& run) const;

  template <class V>
  void parameters(V&& v) {
    v("token_embedding.weight", token_embedding);
    for (size_t i = 0; i < blocks.size(); ++i) v("blocks." + std::to_string(i), blocks[i]);
    v("norm", norm);
    if (!tied()) v("head.weight", head);
  }
};

}  // namespace nanovlm
