// AdamW over groups of parameters that differ in their learning rate, and clipping by the global norm.
#pragma once
#include <unordered_map>

#include "engine/autograd.h"
#include "engine/tensor.h"

namespace nanovlm {

// torch.optim.AdamW's defaults. Weight decay applies to every parameter: norms, biases and embeddings too, as nanoVLM
// does.
struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01;
};

struct ParameterGroup {
  std::vector<Tensor> parameters;  // leaves, f32
  double lr = 0;
};

class AdamW {
 public:
  AdamW(std::vector<ParameterGroup> groups, AdamWOptions options);

  // A step is begun, launched and ended. begin_step uploads what its kernels read (lrs holds one rate a group);
  // until end_step everything is launches alone, the same ones whatever the rates and the step's number.
  void begin_step(const std::vector<double>& lrs);
  // With a number on the device [1]: where it turns out not to be finite, the step's updates leave everything as it is.
  void only_if_finite(const Tensor& number) { only_if_finite_ = number; }

  // *norm [1] = the norm of all gradients together (0 where there are none). With max_norm > 0 the updates scale them
  // by min(1, max_norm / (norm + 1e-6)).
  void clip_grad_norm(double max_norm, const Tensor& norm);

  // While the backward pass still runs: takes a leaf's complete gradient away. Parameters are updated, and gradients
  // dropped, once 16 MiB of them have come together: few launches, and never a copy of the model (not together with
  // clipping).
  void take(Leaf& leaf);
  // Every parameter that has a gradient, and those whose gradient was taken.
  void update_all();
  void zero_grad();

  // Whether the step was taken: it counts, or it has not been.
  void end_step(bool taken);

  int64_t steps() const { return t_; }

 private:
  struct State {
    Tensor parameter, m, v;
    size_t group;
  };
  struct Taken {
    size_t state;
    Tensor gradient;
  };
  void update_taken();

  AdamWOptions options_;
  std::vector<State> states_;
  std::unordered_map<const Leaf*, size_t> by_leaf_;
  std::vector<Taken> taken_;
  int64_t taken_bytes_ = 0;
  size_t groups_;
  Tensor coefficients_;           // [groups, 8], on the device
  Tensor clip_, only_if_finite_;  // [1] of the step that has begun, or undefined
  int64_t t_ = 0;
};

}  // namespace nanovlm
