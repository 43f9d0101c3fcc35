#include "model/vision_language_model.h"

#include <cmath>

#include "engine/random.h"

namespace nanovlm {
namespace {

bool ends_with(const std::string& name, const std::string& end) {
  return name.size() >= end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0;
}

void fill(const Tensor& x, float value) { copy_from_host(x, std::vector<float>(x.numel(), value).data(), x.bytes()); }

float balanced_deviation(const Tensor& weight) {
  return 1 / std::sqrt(static_cast<float>(weight.numel() / weight.size(0)));
}

// Sines and cosines of row and column (as in "Better plain ViT baselines for ImageNet-1k", 2022), so that neighbours
// look alike from the first step. [1, P, C]
Tensor grid_positions(int64_t P, int64_t C, const Device& device) {
  constexpr double kAmplitude = 0.5, kLongest = 100;  // of the wave lengths' range, in patches over 2 pi
  const int64_t n = std::llround(std::sqrt(static_cast<double>(P)));
  std::vector<float> values(static_cast<size_t>(P * C));
  for (int64_t p = 0; p < P; ++p)
    for (int64_t c = 0; c < C; ++c) {
      const int64_t wave = c / 4, waves = (C + 3) / 4;
      const double place = static_cast<double>(c % 2 ? p % n : p / n);
      const double angle = place * std::pow(kLongest, -static_cast<double>(wave) / static_cast<double>(waves));
      values[static_cast<size_t>(p * C + c)] =
          static_cast<float>(kAmplitude * (c % 4 < 2 ? std::sin(angle) : std::cos(angle)));
    }
  return from_host(values, {1, P, C}, device);
}

// Makes a convolution give over pixels in [0, 1] what it gave, without bias, over 2 pixel - 1.
void fold_pixel_range(const Linear& conv) {
  std::vector<float> w = to_host(conv.weight);
  const size_t C = static_cast<size_t>(conv.weight.size(0)), K = w.size() / C;
  std::vector<float> bias(C);
  for (size_t c = 0; c < C; ++c)
    for (size_t k = 0; k < K; ++k) {
      bias[c] -= w[c * K + k];
      w[c * K + k] *= 2;
    }
  copy_from_host(conv.weight, w.data(), conv.weight.bytes());
  copy_from_host(conv.bias, bias.data(), conv.bias.bytes());
}

VLMConfig validated(const VLMConfig& config) {
  config.validate("config");
  return config;
}

}  // namespace

VisionLanguageModel::VisionLanguageModel(const VLMConfig& config_in, const Device& device)
    : config(validated(config_in)), vision_encoder(config, device), decoder(config, device), MP(config, device) {}

void VisionLanguageModel::initialise(uint64_t seed, Init init) {
  const Device host = Device::open("cpu");  // numbers are drawn there and copied: the same on every device
  walk(*this, "", [&](const std::string& name, Tensor& x) {
    Random random(seed, hash_of(name));
    const auto draw = [&](const Tensor& values) { copy_from_host(x, values.data(), x.bytes()); };
    const bool position = ends_with(name, "position_embedding");
    if (ends_with(name, ".bias"))
      fill(x, 0);
    else if (x.rank() == 1)
      fill(x, 1);  // the weight of a norm
    else if (position && init == Init::nanovlm)
      draw(random_uniform(x.shape(), 0, 1, random, host));
    else if (init == Init::nanovlm)
      draw(random_normal(x.shape(), 0.02f, random, host));
    else
      draw(position ? grid_positions(x.size(1), x.size(2), host)
                    : random_normal(x.shape(), balanced_deviation(x), random, host));
  });
  if (init == Init::balanced) fold_pixel_range(vision_encoder.patch_embedding.conv);
}

Inputs VisionLanguageModel::inputs(const Batch& batch, const Layout& layout, int64_t more) const {
  const Tensor& images = batch.images;
  check(images.size(2) == config.vit_img_size && images.size(3) == config.vit_img_size, "batch: images is ",
        images.shape(), ", but vit_img_size is ", config.vit_img_size);
  const Tensor& table = decoder.token_embedding;
  Inputs in;
  in.B = layout.B;
  if (batch.vision.defined()) {
    in.vision = to_device(batch.vision, device());
  } else {
    in.images = to_device(images, device());
    in.pictures = picture_segments(layout.B, config.patches(), device());
  }
  in.texts = layout.segments;
  in.rope = decoder.rotary_embd(layout.T + more, device());
  in.ids = token_ids(layout.ids, table.requires_grad() && device().context().record_gradients, device());
  in.picture_rows = row_numbers(layout.picture_rows, device());
  in.text_rows = row_numbers(layout.text_rows, device());
  if (layout.targets.empty()) return in;
  in.label_rows = row_numbers(layout.label_rows, device());
  in.targets = row_numbers(layout.targets, device());
  return in;
}

Inputs VisionLanguageModel::inputs(const Batch& batch, Padding padding, bool unlabelled) const {
  Layout layout = layout_of(batch, config.image_tokens(), config.lm_vocab_size, padding, device());
  const bool learns = !layout.targets.empty();
  check(learns || unlabelled, "loss: all ", batch.labels.numel(), " labels of the batch are ", kIgnoredLabel,
        " (ignored): there is nothing to learn from");
  if (!learns) layout.label_rows = layout.targets = {0};  // some row
  Inputs in = inputs(batch, layout);
  in.learns = learns;
  return in;
}

Tensor VisionLanguageModel::embed(const Inputs& in, const Forward& run) const {
  const Tensor seen = in.vision.defined() ? in.vision : vision_encoder(in.images, in.pictures, run);
  const Tensor pictures = MP(seen, in.B, run);
  const Tensor text = embedding(decoder.token_embedding, in.ids);
  run.show("decoder.token_embedding", text);
  const Tensor embeddings = splice(pictures, in.picture_rows, text, in.text_rows);
  run.show("decoder.inputs_embeds", embeddings);
  return embeddings;
}

Tensor VisionLanguageModel::loss(const Inputs& in, const Forward& run) const {
  check(in.targets.defined(), "loss: no label of the batch counts");
  const Tensor h = decoder(embed(in, run), in.texts, in.rope, run);
  const Tensor mean = linear_cross_entropy(gather_rows(h, in.label_rows), decoder.head, in.targets, run.dtype);
  return in.learns ? mean : scale(mean, 0.0f);
}

Tensor VisionLanguageModel::logits(const Batch& batch, const Forward& run) const {
  const Layout layout = layout_of(batch, config.image_tokens(), config.lm_vocab_size, Padding::dense, device());
  const Inputs in = inputs(batch, layout);
  const Tensor y = decoder.logits(decoder(embed(in, run), in.texts, in.rope, run), run);
  run.show("decoder.head", y);
  return y;
}

void VisionLanguageModel::to_inference(DType dtype) {
  const NoGrad no_grad(device());
  const MemoryScope scope(device(), MemoryClass::parameter);
  const bool tied = decoder.tied();
  walk(*this, "", [&](const std::string& name, Tensor& x) {
    const bool is_product_weight = x.rank() > 1 && !ends_with(name, "position_embedding");
    x = is_product_weight ? cast(x.detach(), dtype) : x.detach();
  });
  if (tied) decoder.head = decoder.token_embedding;
}

int64_t VisionLanguageModel::parameter_count() {
  int64_t count = 0;
  walk(*this, "", [&](const std::string&, Tensor& x) { count += x.numel(); });
  return count;
}

}  // namespace nanovlm
