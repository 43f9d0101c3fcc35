// The vision encoder: SigLIP's vision transformer without its pooling head.
#pragma once
#include <vector>

#include "model/config.h"
#include "model/layers.h"

namespace nanovlm {

struct ViTPatchEmbeddings {
  Linear conv;                // weight [C, 3, p, p], bias [C]
  Tensor position_embedding;  // [1, P, C]

  // [B, 3, S, S] -> [B * P, C]
  Tensor operator()(const Tensor& images, const Forward& run) const;

  template <class V>
  void parameters(V&& v) {
    v("conv", conv), v("position_embedding", position_embedding);
  }
};

struct ViTMultiHeadAttention {
  Heads heads;
  Linear qkv_proj, out_proj;

  // [B * P, C] -> [B * P, C]; every patch sees every patch of its picture
  Tensor operator()(const Tensor& x, const Segments& pictures, const Forward& run) const {
    return out_proj(attention(qkv_proj(x, run), heads, pictures, {}, false), run);
  }

  template <class V>
  void parameters(V&& v) {
    v("qkv_proj", qkv_proj), v("out_proj", out_proj);
  }
};

struct ViTMLP {
  Linear fc1, fc2;

  Tensor operator()(const Tensor& x, const Forward& run) const {
    return mlp(x, fc1.weight, fc1.bias, fc2.weight, fc2.bias, run.dtype);
  }

  template <class V>
  void parameters(V&& v) {
    v("fc1", fc1), v("fc2", fc2);
  }
};

// Pre-norm transformer block. The stream comes in and goes out as a sum not yet taken.
struct ViTBlock {
  LayerNorm ln1, ln2;
  ViTMultiHeadAttention attn;
  ViTMLP mlp;

  Residual operator()(const Residual& in, const Segments& pictures, const Forward& run, const std::string& name) const;

  template <class V>
  void parameters(V&& v) {
    v("ln1", ln1), v("attn", attn), v("ln2", ln2), v("mlp", mlp);
  }
};

// One segment of P rows for each of B pictures.
Segments picture_segments(int64_t B, int64_t P, const Device& device);

struct ViT {
  ViTPatchEmbeddings patch_embedding;
  std::vector<ViTBlock> blocks;
  LayerNorm layer_norm;

  explicit ViT(const VLMConfig& config, const Device& device);

  // [B, 3, S, S] u8, or f32 in [0, 1] -> [B * P, C]
  Tensor operator()(const Tensor& images, const Forward& run) const;
  // The same with picture_segments(B, P) already on the device.
  Tensor operator()(const Tensor& images, const Segments& pictures, const Forward& run) const;

  template <class V>
  void parameters(V&& v) {
    v("patch_embedding", patch_embedding);
    for (size_t i = 0; i < blocks.size(); ++i) v("blocks." + std::to_string(i), blocks[i]);
    v("layer_norm", layer_norm);
  }
};

}  // namespace nanovlm
