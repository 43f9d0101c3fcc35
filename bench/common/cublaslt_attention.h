// Attention without a fused kernel: cuBLASLt's batched products, a head's of all sequences at once, and a softmax
// kernel between them. Scores and probabilities lie in memory, in the operands' dtype. It has no RoPE.
#pragma once
#include <memory>

#include "bench/common/attention_problem.h"
#include "engine/tensor.h"

namespace nanovlm::bench {

// Of one shape, for any operands of its dtype: rows [B * T, heads * D]. The library is loaded at the first call: what
// is missing is an Error there. Takes the algorithms that the library proposes first.
class CublasltAttention {
 public:
  CublasltAttention(const Problem& problem, const Device& device);
  ~CublasltAttention();

  Tensor kept() const;  // for the probabilities, from forward to backward: [H, B, T, T], without content

  void forward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& o, const Tensor& kept);
  void backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& o, const Tensor& d_o,
                const Tensor& kept, const Tensor& dq, const Tensor& dk, const Tensor& dv);

 private:
  struct Products;

  const Products& products();

  Problem problem_;
  Device device_;
  std::unique_ptr<Products> products_;
  Tensor ds_;  // the gradient of probabilities, then of scores
};

}  // namespace nanovlm::bench
