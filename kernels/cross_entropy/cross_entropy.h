// Cross entropy of rows of logits, and its gradient in the same pass.
//   loss[r]    = logsumexp(logits[r]) - logits[r, target[r]]
//   dlogits[r] = scale * (softmax(logits[r]) - onehot(target[r]))
// Arithmetic is fp32.
#pragma once
#include "kernels/types.h"

namespace nanovlm::kernels {

struct CrossEntropy {
  const float* logits;     // [R, V]
  const int32_t* targets;  // [R], each in 0 .. V - 1
  float* loss;             // [R]
  void* dlogits;           // [R, V] dtype, or null; may be `logits` itself where dtype is f32
  int64_t R, V;
  float scale;
  DType dtype;
};

template <class Backend>
void cross_entropy(Backend, const CrossEntropy&, Stream);

}  // namespace nanovlm::kernels
