// Define-by-run autograd. An op computes its result and records one closure, which later turns the gradient of its
// outputs into one gradient an input. `backward` visits the nodes from the newest to the oldest, so that the order of
// additions is fixed, and frees what a node saved as soon as it has run.
#pragma once
#include <functional>
#include <span>
#include <string>

#include "engine/tensor.h"

namespace nanovlm {

using Gradients = std::vector<Tensor>;
using Needs = std::vector<bool>;  // which inputs want a gradient

// A parameter, or another tensor whose gradient somebody asked for.
struct Leaf {
  Tensor grad;
  bool shared = false;  // others may read grad's memory: what is added goes into memory of its own
  int uses = 0;         // during a backward: nodes still to run that will add to grad
};

// dys: one gradient an output, undefined where none arrived. Returns one an input, undefined where not needed.
using BackwardFn = std::function<Gradients(const Gradients& dys, const Needs& needs)>;

struct Node {
  struct Input {
    std::shared_ptr<Node> node;  // at most one of node and leaf
    int output = 0;
    std::shared_ptr<Leaf> leaf;
    Shape shape;
    DType dtype = DType::f32;
  };
  const char* name;
  uint64_t order;  // nodes are numbered as they are made
  std::vector<Input> inputs;
  std::vector<Shape> output_shapes;
  std::vector<DType> output_dtypes;
  BackwardFn backward;
  Gradients arrived;  // during a backward: the sum so far, one an output

  // Links `outputs` to `inputs` where one of these needs a gradient and recording is on; otherwise does nothing.
  static void record(const char* name, std::vector<Tensor*> outputs, const std::vector<Tensor>& inputs,
                     BackwardFn backward);
};

// For an op with one output: returns y, linked to its inputs.
Tensor record(const char* name, Tensor y, const std::vector<Tensor>& inputs,
              std::function<Gradients(const Tensor& dy, const Needs& needs)> backward);

// What has been added up so far for a leaf, where nobody else reads that memory; otherwise an undefined tensor. A
// closure may add to it in place and return it: the engine then has nothing left to add.
Tensor gradient_so_far(const Tensor& x);

// For an op that has no gradient: asking for one throws and names the op.
Tensor without_gradient(const char* name, Tensor y, const std::vector<Tensor>& inputs);

// Adds d root / d leaf to the grad of every leaf that root depends on. root has one element.
// leaf_done, if given, is called with each leaf once its gradient is complete (the optimizer may use and drop it
// there).
void backward(const Tensor& root, const std::function<void(Leaf&)>& leaf_done = {});

// Nothing is recorded on `device` while this lives.
struct NoGrad : ContextScope<&DeviceContext::record_gradients> {
  explicit NoGrad(Device device) : ContextScope(std::move(device), false) {}
};

}  // namespace nanovlm
