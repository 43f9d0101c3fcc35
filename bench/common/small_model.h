// A model for the executor, which takes seconds for what a GPU does in microseconds: the real one's head size,
// activations and kinds of layers, one block of each transformer.
#pragma once
#include "model/config.h"

namespace nanovlm::bench {

inline VLMConfig small_config() {
  VLMConfig c;
  c.vit_hidden_dim = 192, c.vit_inter_dim = 768, c.vit_n_heads = 3, c.vit_n_blocks = 1, c.vit_img_size = 128;
  c.lm_hidden_dim = 192, c.lm_inter_dim = 512, c.lm_n_heads = 3, c.lm_n_kv_heads = 1, c.lm_n_blocks = 1;
  c.lm_vocab_size = 2048, c.IMAGE_TOKEN_LENGTH = 16, c.lm_max_length = 112;
  c.vlm_load_backbone_weights = false;
  return c;
}

}  // namespace nanovlm::bench
