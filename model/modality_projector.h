// From picture features to the decoder's embeddings: pixel shuffle, then one linear map without bias.
#pragma once
#include "model/config.h"
#include "model/layers.h"

namespace nanovlm {

struct ModalityProjector {
  int factor;
  Linear proj;  // weight [L, C * factor^2]

  ModalityProjector(const VLMConfig& config, const Device& device)
      : factor(static_cast<int>(config.mp_pixel_shuffle_factor)),
        proj{parameter({config.lm_hidden_dim, config.mp_input_dim()}, device), {}} {}

  // [B * P, C] -> [B * P / factor^2, L]
  Tensor operator()(const Tensor& x, int64_t B, const Forward& run) const {
    if (run.trace) run.show("mp.pixel_shuffle", pixel_shuffle(x, B, factor));
    const Tensor y = projector(x, B, factor, proj.weight, run.dtype);
    run.show("mp.proj", y);
    return y;
  }

  template <class V>
  void parameters(V&& v) {
    v("proj", proj);
  }
};

}  // namespace nanovlm
