// Cross entropy of rows through the head: cross_entropy of logits = h weight^T, and its gradient with respect to them.
// Where the tensor cores of a GPU make them, logits are never stored: they exist in tiles, twice.
//   loss[r]    = logsumexp(logits[r]) - logits[r, target[r]]
//   dlogits[r] = scale * (softmax(logits[r]) - onehot(target[r]))
// Products and sums are fp32, logits not rounded; dlogits is rounded once.
#pragma once
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/matmul/matmul.h"

namespace nanovlm::kernels {

struct HeadCrossEntropy {
  const void* h;           // [R, C] dtype
  const void* weight;      // [V, C] dtype
  const int32_t* targets;  // [R], each in 0 .. V - 1
  float* loss;             // [R]
  void* dlogits;           // [R, V] dtype, or null
  float* logits;           // [R, V] to work in where head_stores_logits(); may be dlogits if that is f32
  int64_t R, V, C;
  float scale;
  DType dtype;
};

// Whether `logits` is needed.
constexpr bool head_stores_logits(bool on_gpu, DType dtype) { return !on_gpu || dtype != DType::bf16; }

template <class Backend>
void head_cross_entropy(Backend, const HeadCrossEntropy&, Stream);

// By a product and a pass over its result.
template <class Backend>
void head_cross_entropy_stored(Backend backend, const HeadCrossEntropy& a, Stream stream) {
  matmul(backend, {a.h, a.weight, a.logits, nullptr, a.R, a.V, a.C, false, true, false, a.dtype, DType::f32}, stream);
  cross_entropy(backend, {a.logits, a.targets, a.loss, a.dlogits, a.R, a.V, a.scale, a.dtype}, stream);
}

}  // namespace nanovlm::kernels
