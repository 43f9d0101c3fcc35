#include "model/vision_transformer.h"

#include "engine/autograd.h"

namespace nanovlm {

Segments picture_segments(int64_t B, int64_t P, const Device& device) {
  std::vector<int32_t> bounds;
  for (int64_t b = 0; b <= B; ++b) bounds.push_back(static_cast<int32_t>(b * P));
  return {from_host(bounds, {B + 1}, device), P, {}, {}};
}

Tensor ViTPatchEmbeddings::operator()(const Tensor& images, const Forward& run) const {
  const Tensor y = patch_embedding(images, conv.weight, conv.bias, position_embedding, run.dtype);
  if (run.trace) {
    // The bare convolution, which the kernel never writes: what a zero position embedding leaves.
    const NoGrad no_grad(images.device());
    run.show("vision.patch_conv",
             patch_embedding(images, conv.weight, conv.bias, zeros_like(position_embedding), run.dtype));
    run.show("vision.patch_embedding", y);
  }
  return y;
}

Residual ViTBlock::operator()(const Residual& in, const Segments& pictures, const Forward& run,
                              const std::string& name) const {
  const auto [x, n1] = ln1(in, run);
  run.show(name + ".ln1", n1);
  const Tensor a = attn(n1, pictures, run);
  run.show(name + ".attn", a);

  const auto [h, n2] = ln2({x, a}, run);
  run.show(name + ".ln2", n2);
  const Tensor m = mlp(n2, run);
  run.show(name + ".mlp", m);

  const Residual out = {h, m};
  run.show(name, out);
  return out;
}

ViT::ViT(const VLMConfig& config, const Device& device) {
  const int64_t C = config.vit_hidden_dim, I = config.vit_inter_dim, p = config.vit_patch_size;
  const auto make = [&](Shape shape) { return parameter(std::move(shape), device); };
  const auto norm = [&] { return LayerNorm{make({C}), make({C}), static_cast<float>(config.vit_ln_eps)}; };
  const Heads heads = {static_cast<int>(config.vit_n_heads), static_cast<int>(config.vit_n_heads),
                       static_cast<int>(config.vit_head_dim())};

  patch_embedding = {{make({C, 3, p, p}), make({C})}, make({1, config.patches(), C})};
  for (int64_t i = 0; i < config.vit_n_blocks; ++i)
    blocks.push_back({norm(),
                      norm(),
                      {heads, {make({3 * C, C}), make({3 * C})}, {make({C, C}), make({C})}},
                      {{make({I, C}), make({I})}, {make({C, I}), make({C})}}});
  layer_norm = norm();
}

Tensor ViT::operator()(const Tensor& images, const Forward& run) const {
  const int64_t P = patch_embedding.position_embedding.size(1);
  return (*this)(images, picture_segments(images.size(0), P, images.device()), run);
}

Tensor ViT::operator()(const Tensor& images, const Segments& pictures, const Forward& run) const {
  Residual x = {patch_embedding(unit_range(images), run), {}};
  for (size_t i = 0; i < blocks.size(); ++i) x = blocks[i](x, pictures, run, "vision.blocks." + std::to_string(i));
  const Tensor y = layer_norm(x, run).y;
  run.show("vision.post_layernorm", y);
  return y;
}

}  // namespace nanovlm
