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

  // The norm of all gradients together (0 where there are none yet). With max_norm > 0 the next step scales them by
  // min(1, max_norm / (norm + 1e-6)).
  double clip_grad_norm(double max_norm);

  // One step of every parameter that has a gradient; lrs holds one rate a group.
  void step(const std::vector<double>& lrs);
  void zero_grad();

  // The same step, taken one parameter at a time while the backward pass still runs, so that a gradient can be dropped
  // before the next is made: begin_step, then update(leaf) as each gradient is complete. Not together with clipping.
  void begin_step(const std::vector<double>& lrs);
  void update(Leaf& leaf);  // also drops the gradient

  int64_t steps() const { return t_; }

 private:
  struct State {
    Tensor parameter, m, v;
    size_t group;
  };
  void update(State& state, const Tensor& gradient);

  AdamWOptions options_;
  std::vector<State> states_;
  std::unordered_map<const Leaf*, size_t> by_leaf_;
  std::vector<double> lrs_;
  Tensor clip_;  // the clipping factor of the coming step, or undefined
  int64_t t_ = 0;
};

}  // namespace nanovlm
