// The softmax between attention's two products where its scores are stored, and its gradient. Row r is a query, one of
// T after each other; it sees the keys t of all T, or where causal of the first r % T + 1. What it does not see gets 0.
//   p[r, t] = e^(scale s[r, t]) / sum over seen t' of e^(scale s[r, t'])
//   ds[r, t] = scale p[r, t] (dp[r, t] - sum over t' of p[r, t'] dp[r, t'])
// The model's attention stores no scores (kernels/attention/): this is for what benches compare it with.
#pragma once
#include "kernels/types.h"

namespace nanovlm::kernels {

struct Softmax {
  const void* s;  // [R, T] in
  void* p;        // [R, T] out; may be s where the dtypes are one
  int64_t R, T;
  float scale;  // positive
  bool causal;
  DType in, out;
};

struct SoftmaxBackward {
  const void *p, *dp;  // [R, T] dtype
  void* ds;            // [R, T] dtype; may be dp
  int64_t R, T;
  float scale;
  DType dtype;
};

template <class Backend>
void softmax(Backend, const Softmax&, Stream);
template <class Backend>
void softmax_backward(Backend, const SoftmaxBackward&, Stream);

}  // namespace nanovlm::kernels
