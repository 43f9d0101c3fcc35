// nanoVLM v1: a vision encoder, a projector that turns its patches into tokens, and a decoder that reads these before
// the text.
#pragma once
#include "engine/batch.h"
#include "model/inputs.h"
#include "model/language_model.h"
#include "model/layout.h"
#include "model/modality_projector.h"
#include "model/vision_transformer.h"

namespace nanovlm {

// How fresh weights are drawn. `nanovlm` is the reference: linear, convolution and embedding weights N(0, 0.02), norms
// 1, biases 0, position embedding U[0, 1). `balanced` is for small models trained from nothing (docs/journal.md): every
// matrix is N(0, 1 / sqrt(fan-in)), so that no part drowns another; positions are N(0, 0.2); and pixels enter as if
// normalised to [-1, 1], which the convolution's weight and bias absorb, so that the checkpoint is a plain nanoVLM one.
enum class Init { nanovlm, balanced };

class VisionLanguageModel {
 public:
  VLMConfig config;
  ViT vision_encoder;
  LanguageModel decoder;
  ModalityProjector MP;

  // Allocates every parameter; the numbers are undefined until initialise() or load_weights().
  VisionLanguageModel(const VLMConfig& config, const Device& device);

  // The same numbers for the same seed on every device, whatever else the model holds: each parameter has a stream of
  // its own.
  void initialise(uint64_t seed, Init init = Init::nanovlm);

  // The batch in its layout on the device, with RoPE's table for the layout's positions and `more` of them.
  Inputs inputs(const Batch& batch, const Layout& layout, int64_t more = 0) const;
  // The same for training. Where no label counts: an error, or with `unlabelled` inputs that teach nothing.
  Inputs inputs(const Batch& batch, Padding padding, bool unlabelled = false) const;

  // Picture and text embeddings in the layout's rows [R, L].
  Tensor embed(const Inputs& in, const Forward& run) const;

  // Mean cross entropy over the labels that count: launches alone. Errors: no label counts.
  Tensor loss(const Inputs& in, const Forward& run) const;
  Tensor loss(const Batch& batch, const Forward& run, Padding padding = Padding::packed) const {
    return loss(inputs(batch, padding), run);
  }

  // Every row through the head [B * T, V] f32, dense, with all activations shown to run.trace.
  Tensor logits(const Batch& batch, const Forward& run) const;

  // Keeps the weights of matrix products in `dtype` only, for generation. The model can't be trained after.
  void to_inference(DType dtype);

  int64_t parameter_count();
  const Device& device() const { return decoder.token_embedding.device(); }

  template <class V>
  void parameters(V&& v) {
    v("vision_encoder", vision_encoder), v("decoder", decoder), v("MP", MP);
  }
};

}  // namespace nanovlm
