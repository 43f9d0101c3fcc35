#include "model/language_model.h"

#include <cmath>

namespace nanovlm {
namespace {

// [positions, D / 2] -> [positions, D], as nanoVLM keeps angles: every one for both columns that it turns.
Tensor both_halves(const Tensor& angles) {
  const int64_t half = angles.size(1);
  std::vector<float> values = to_host(angles), twice;
  for (auto row = values.begin(); row != values.end(); row += half)
    for (int copy = 0; copy < 2; ++copy) twice.insert(twice.end(), row, row + half);
  return from_host(twice, {angles.size(0), 2 * half}, angles.device());
}

}  // namespace

std::vector<float> RotaryEmbedding::inv_freq() const {
  std::vector<float> frequencies;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    // In fp32 steps, as torch computes 1 / base^(2 i / D).
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    frequencies.push_back(1.0f / std::pow(static_cast<float>(base), exponent));
  }
  return frequencies;
}

RopeTable RotaryEmbedding::operator()(int64_t length, const Device& device) const {
  std::vector<float> frequencies = inv_freq();
  if (length > max_positions)
    for (float& f : frequencies)
      f /= static_cast<float>(static_cast<double>(length) / static_cast<double>(max_positions));
  std::vector<float> cos, sin;
  for (int64_t t = 0; t < length; ++t)
    for (const float frequency : frequencies) {
      const float angle = static_cast<float>(t) * frequency;
      cos.push_back(std::cos(angle) * static_cast<float>(attn_scaling));
      sin.push_back(std::sin(angle) * static_cast<float>(attn_scaling));
    }
  return {from_host(cos, {length, head_dim / 2}, device), from_host(sin, {length, head_dim / 2}, device)};
}

Tensor LanguageModelGroupedQueryAttention::operator()(const Tensor& x, const RopeTable& rope, const Segments& texts,
                                                      const Forward& run, const CacheStep* step) const {
  if (!step && x.device().context().record_gradients)
    return out_proj(attention(joined(x, run, q_proj, k_proj, v_proj), heads, texts, rope, true), run);
  const auto [q, k, v] = each_of(x, run, q_proj, k_proj, v_proj);
  if (!step) return out_proj(attention(q, k, v, heads, texts, rope, true), run);

  const Tensor rotated_q = nanovlm::rope(q, heads.H, heads.D, rope, texts.positions);
  const Tensor rotated_k = nanovlm::rope(k, heads.G, heads.D, rope, texts.positions);
  write_rows(rotated_k, step->rows, step->cache->k);
  write_rows(v, step->rows, step->cache->v);
  if (step->lengths.defined())
    return out_proj(attention_decode(rotated_q, step->cache->k, step->cache->v, heads, step->lengths), run);
  return out_proj(attention(rotated_q, rotated_k, v, heads, texts, {}, true), run);
}

Residual LanguageModelBlock::operator()(const Residual& in, const RopeTable& rope, const Segments& texts,
                                        const Forward& run, const CacheStep* step, const std::string& name) const {
  const auto [x, n1] = norm1(in, run);
  run.show(name + ".norm1", n1);
  const Tensor a = attn(n1, rope, texts, run, step);
  run.show(name + ".attn", a);

  const auto [h, n2] = norm2({x, a}, run);
  run.show(name + ".norm2", n2);
  const Tensor m = mlp(n2, run);
  run.show(name + ".mlp", m);

  const Residual out = {h, m};
  run.show(name, out);
  return out;
}

LanguageModel::LanguageModel(const VLMConfig& config, const Device& device)
    : rotary_embd{config.lm_head_dim(), config.lm_re_base, config.lm_attn_scaling, config.lm_max_position_embeddings} {
  const int64_t L = config.lm_hidden_dim, I = config.lm_inter_dim, V = config.lm_vocab_size;
  const int64_t kv = config.lm_n_kv_heads * config.lm_head_dim();
  const auto make = [&](Shape shape) { return parameter(std::move(shape), device); };
  const auto rms_norm = [&] { return RmsNorm{make({L}), static_cast<float>(config.lm_rms_eps)}; };
  const Heads heads = {static_cast<int>(config.lm_n_heads), static_cast<int>(config.lm_n_kv_heads),
                       static_cast<int>(config.lm_head_dim())};

  token_embedding = make({V, L});
  head = config.lm_tie_weights ? token_embedding : make({V, L});
  for (int64_t i = 0; i < config.lm_n_blocks; ++i)
    blocks.push_back({rms_norm(),
                      rms_norm(),
                      {heads, {make({L, L}), {}}, {make({kv, L}), {}}, {make({kv, L}), {}}, {make({L, L}), {}}},
                      {{make({I, L}), {}}, {make({I, L}), {}}, {make({L, I}), {}}}});
  norm = rms_norm();
}

Tensor LanguageModel::operator()(const Tensor& embeddings, const Segments& texts, const RopeTable& rope,
                                 const Forward& run, KvCache* cache, const Tensor& cache_rows,
                                 const Tensor& cache_lengths) const {
  if (run.trace) run.show("rope.cos", both_halves(rope.cos)), run.show("rope.sin", both_halves(rope.sin));
  Residual x = {embeddings, {}};
  for (size_t i = 0; i < blocks.size(); ++i) {
    const std::string name = "decoder.blocks." + std::to_string(i);
    if (cache) {
      const CacheStep step = {&cache->blocks[i], cache_rows, cache_lengths, cache->capacity};
      x = blocks[i](x, rope, texts, run, &step, name);
    } else {
      x = blocks[i](x, rope, texts, run, nullptr, name);
    }
  }
  const Tensor y = norm(x, run).y;
  run.show("decoder.norm", y);
  return y;
}

Tensor LanguageModel::logits(const Tensor& h, const Forward& run) const {
  return linear(h, head, {}, run.dtype, DType::f32);
}

}  // namespace nanovlm
