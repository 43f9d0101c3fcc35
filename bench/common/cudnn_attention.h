// cuDNN's scaled dot-product attention, what our kernels have to be measured against on a GPU. It has no RoPE.
//
// All of its headers are behind this one. cuDNN is found when the first product is asked for (kernels/cuda/cublaslt.h
// says why), and the frontend that speaks to it is there only in builds whose CMake found its headers
// (cudnn_frontend.cmake): what is missing is an Error at the first call.
#pragma once
#include <memory>

#include "bench/common/attention_problem.h"
#include "engine/tensor.h"

namespace nanovlm::bench {

// Of one shape, for any operands: bf16, rows [B * T, heads * D].
class CudnnAttention {
 public:
  CudnnAttention(const Problem& problem, const Device& device);
  ~CudnnAttention();

  Tensor kept() const;  // for each row's log-sum-exp, from forward to backward: [B, H, T] fp32, without content

  // Both return at once, as a kernel's launch does, but for the first call, which builds the plan.
  void forward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& o, const Tensor& kept);
  void backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& o, const Tensor& d_o,
                const Tensor& kept, const Tensor& dq, const Tensor& dk, const Tensor& dv);

 private:
  class Handle;
  class Plan;

  Problem problem_;
  Device device_;
  std::unique_ptr<Handle> handle_;  // outlives the plans
  std::unique_ptr<Plan> forward_, backward_;
};

}  // namespace nanovlm::bench
