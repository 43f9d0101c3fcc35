// The plainest form of some operations, for benches to compare with: a thread an entry of the result, no tiles, no
// shared memory, every intermediate stored. The contracts are those of the operations, but for what is said here.
#pragma once
#include "kernels/adamw/adamw.h"
#include "kernels/attention/attention.h"
#include "kernels/patch_embedding/patch_embedding.h"

namespace nanovlm::kernels {

// Of segments that are all `longest` rows long, without mask and RoPE (q and k come rotated).
struct NaiveAttention {
  Attention a;
  float* p;  // [R, H, longest] scratch: scores, then probabilities
};

// The same; dq and dk leave rotated.
struct NaiveAttentionBackward {
  AttentionBackward a;
  float* delta;   // [R, H] scratch
  float *p, *ds;  // [R, H, longest] scratch: the probabilities and the scores' gradient
};

template <class Backend>
void naive_adamw(Backend, const AdamW&, Stream);
template <class Backend>
void naive_patch_embedding(Backend, const PatchEmbedding&, Stream);
// Without dimages.
template <class Backend>
void naive_patch_embedding_backward(Backend, const PatchEmbeddingBackward&, Stream);
template <class Backend>
void naive_attention(Backend, const NaiveAttention&, Stream);
template <class Backend>
void naive_attention_backward(Backend, const NaiveAttentionBackward&, Stream);

}  // namespace nanovlm::kernels
