// Patch embedding: a convolution whose stride is its kernel size, as a matrix product over patches.
//
//   y[b, i, c] = sum over k of weight[c, k] pixel(b, i, k) + bias[c] + position[i, c]
//
// Patch i = (row, column) of the grid, row-major; k = (channel, dy, dx). K = 3 p^2; P = (S / p)^2 (rows and columns
// that do not fill a patch are left out). Pixels and weight are rounded to `dtype` where they enter the product; sums
// are fp32.
#pragma once
#include "kernels/types.h"

namespace nanovlm::kernels {

struct PatchEmbedding {
  const float* images;    // [B, 3, S, S]
  const void* weight;     // [C, K] dtype
  const float* bias;      // [C]
  const float* position;  // [P, C], or null
  float* y;               // [B, P, C]
  void* patches;          // [B * P, K] dtype: scratch for backends that gather the pixels first; others leave it alone
  int64_t B, C;
  int S, p;
  DType dtype;
};

// Each gradient but dimages is added to; any may be null. dy is rounded to `dtype` where it enters a product, but not
// for dbias and dposition; dimages is rounded to `dtype` once, after its sum. Pixels outside the patches get 0.
struct PatchEmbeddingBackward {
  const float* images;  // [B, 3, S, S]
  const void* weight;   // [C, K] dtype
  const float* dy;      // [B, P, C]
  float* dweight;       // [C, K]
  float* dbias;         // [C]
  float* dposition;     // [P, C]
  float* dimages;       // [B, 3, S, S], written
  void* patches;        // [B * P, K] dtype: scratch
  void* dy_rounded;     // [B * P, C] dtype: scratch
  int64_t B, C;
  int S, p;
  DType dtype;
};

template <class Backend>
void patch_embedding(Backend, const PatchEmbedding&, Stream);
template <class Backend>
void patch_embedding_backward(Backend, const PatchEmbeddingBackward&, Stream);

}  // namespace nanovlm::kernels
