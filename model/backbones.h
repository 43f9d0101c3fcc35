// Published weights to start from: a SigLIP vision tower and a Llama-shaped language model, each a folder as Hugging
// Face's transformers saves it (config.json, and model.safetensors or shards with an index; F32, BF16 or F16). The
// vision tower may also be that of a nanoVLM checkpoint.
//
// Names and settings are taken over as nanoVLM's ViT.from_pretrained and LanguageModel.from_pretrained do. Where these
// would go on with random numbers, more is done, and said in a note: an untied head is read, or copied from the
// embedding where the file has none; a position embedding of another grid is resized. Sharded files, which nanoVLM v1
// does not read, are read.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "model/vision_language_model.h"

namespace nanovlm {

struct Backbones {
  std::string vision, language;  // folders; empty: that part keeps the numbers and settings it has

  // Takes the settings of config.json and not the picture size: the position embedding is resized to
  // config.vit_img_size when the weights are loaded.
  bool keep_img_size = false;
};

// Overwrites the fields that from_pretrained overwrites: sizes, norms' epsilons, heads, blocks, dropout, RoPE's base
// and length, patch and picture size; then IMAGE_TOKEN_LENGTH and TOTAL_SEQUENCE_LENGTH, which follow from these.
// lm_vocab_size stays: it may exceed the file's. Error: one for both folders, with everything that is missing or is not
// what this model computes (another activation, biases, scaled RoPE, ...).
void configure_from(const Backbones& backbones, VLMConfig& config);

// Loads the weights into a model that was made with such a configuration. All or nothing: missing tensors, wrong shapes
// and dtypes, and tensors that this model has no place for are listed in one Error, for both folders, before a number
// is copied. A vision file's pooling head and text tower are ignored. The embedding's rows beyond the file's are drawn
// from N(0, 0.02). `notes` gets what was done.
void load_backbones(const Backbones& backbones, VisionLanguageModel& model, uint64_t seed,
                    std::vector<std::string>& notes);

// A square grid of patch positions [1, P, C] at another number of patches: bicubic (a = -0.75, pixel centres aligned,
// borders repeated, no antialiasing), as transformers' interpolate_pos_encoding. Error: either is no square.
Tensor resize_positions(const Tensor& positions, int64_t patches);

}  // namespace nanovlm
