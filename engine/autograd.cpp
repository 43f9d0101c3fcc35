#include "engine/autograd.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <iostream>
#include <unordered_set>

#include "kernels/elementwise/elementwise.h"

namespace nanovlm {

// The parts of Tensor that only autograd may touch.
class Graph {
 public:
  static void link(Tensor& y, std::shared_ptr<Node> node, int output) {
    y.node_ = std::move(node);
    y.output_ = output;
    y.leaf_ = nullptr;
  }
  static Node::Input input(const Tensor& x) {
    if (!x.defined()) return {};
    return {x.node_, x.output_, x.leaf_, x.shape(), x.dtype()};
  }
  static const std::shared_ptr<Node>& node(const Tensor& x) { return x.node_; }
  static int output(const Tensor& x) { return x.output_; }
};

namespace {

// a + b where both are given; in a's memory, where that is ours alone.
Tensor accumulate(Tensor a, Tensor b, bool a_is_ours) {
  if (!a.defined()) return b;
  Tensor y = a_is_ours ? a : empty_like(a);
  on(a.device(), "add", [&](auto backend, Stream stream) {
    kernels::add(backend, {a.data(), b.data(), y.data(), a.numel(), a.dtype(), b.dtype(), y.dtype()}, stream);
  });
  return y;
}

// From NANOVLM_DEBUG=3 on: the graph as it is made and run. From 4 on: the first operation that makes a number that is
// not finite throws and is named.
void observe(const char* stage, const char* name, const Tensor& x) {
  if (!x.defined() || x.device().context().debug < 3) return;
  std::cerr << stage << ' ' << name << ' ' << x.shape() << ' ' << x.dtype() << '\n';
  if (x.device().context().debug < 4 || (x.dtype() != DType::f32 && x.dtype() != DType::bf16)) return;
  const std::vector<float> values = to_host(x);
  for (size_t i = 0; i < values.size(); ++i)
    check(std::isfinite(values[i]), name, ": ", stage, ": element ", i, " of ", x.shape(), " is ", values[i]);
}

void check_gradient(const Node& node, size_t i, const Tensor& gradient) {
  const Node::Input& input = node.inputs[i];
  check(gradient.shape() == input.shape && gradient.dtype() == input.dtype, node.name, ": gradient of input ", i,
        " is ", gradient.shape(), " ", gradient.dtype(), ", but the input is ", input.shape, " ", input.dtype);
  check(gradient.is_contiguous(), node.name, ": gradient of input ", i, " is not contiguous");
}

// Which gradients lie in memory that others may read: views of what arrived, as add and view return them, and of each
// other.
std::vector<bool> shared_of(const Gradients& gradients, const Gradients& arrived) {
  std::vector<bool> shared;
  for (const Tensor& gradient : gradients) {
    const auto overlaps = [&](const Tensor& other) { return &other != &gradient && other.overlaps(gradient); };
    shared.push_back(std::any_of(arrived.begin(), arrived.end(), overlaps) ||
                     std::any_of(gradients.begin(), gradients.end(), overlaps));
  }
  return shared;
}

void add_to_leaf(Leaf& leaf, Tensor gradient, bool shared) {
  if (!leaf.grad.defined()) {
    leaf.grad = std::move(gradient);
    leaf.shared = shared;
    return;
  }
  const bool added_in_place = !leaf.shared && leaf.grad.data() == gradient.data();
  if (!added_in_place) leaf.grad = accumulate(std::move(leaf.grad), std::move(gradient), !leaf.shared);
  leaf.shared = false;
}

// Every node that root depends on, newest first; counts how often each leaf is used. A backward that threw may have
// left counts and gradients that were on their way.
std::vector<std::shared_ptr<Node>> reachable(const std::shared_ptr<Node>& root) {
  std::vector<std::shared_ptr<Node>> nodes = {root};
  std::unordered_set<const Node*> seen = {root.get()};
  for (size_t i = 0; i < nodes.size(); ++i) {
    Node& node = *nodes[i];
    check(node.backward != nullptr, node.name, ": backward was called twice on the same graph");
    node.arrived.assign(node.output_shapes.size(), {});
    for (const Node::Input& input : node.inputs) {
      if (input.leaf) input.leaf->uses = 0;
      if (input.node && seen.insert(input.node.get()).second) nodes.push_back(input.node);
    }
  }
  for (const auto& node : nodes)
    for (const Node::Input& input : node->inputs)
      if (input.leaf) ++input.leaf->uses;
  std::sort(nodes.begin(), nodes.end(), [](const auto& a, const auto& b) { return a->order > b->order; });
  return nodes;
}

// Runs the node's closure on what has arrived, and hands the results to its inputs.
void run(Node& node, const std::function<void(Leaf&)>& leaf_done) {
  Needs needs;
  for (const Node::Input& input : node.inputs) needs.push_back(input.node || input.leaf);
  Gradients gradients = node.backward(node.arrived, needs);
  check(gradients.size() == node.inputs.size(), node.name, ": ", gradients.size(), " gradients for ",
        node.inputs.size(), " inputs");
  const std::vector<bool> shared = shared_of(gradients, node.arrived);
  node.backward = nullptr;
  node.arrived.clear();

  for (size_t i = 0; i < node.inputs.size(); ++i) {
    const Node::Input& input = node.inputs[i];
    if (!needs[i]) continue;
    check(gradients[i].defined(), node.name, ": no gradient for input ", i, ", which needs one");
    check_gradient(node, i, gradients[i]);
    observe("gradient", node.name, gradients[i]);
    if (input.leaf) {
      add_to_leaf(*input.leaf, std::move(gradients[i]), shared[i]);
      if (--input.leaf->uses == 0 && leaf_done) leaf_done(*input.leaf);
    } else {
      Tensor& sum = input.node->arrived[static_cast<size_t>(input.output)];
      sum = accumulate(std::move(sum), std::move(gradients[i]), false);
    }
    gradients[i] = {};
  }
  node.inputs.clear();
}

}  // namespace

void Node::record(const char* name, std::vector<Tensor*> outputs, const std::vector<Tensor>& inputs,
                  BackwardFn backward) {
  for (const Tensor* output : outputs) observe("forward", name, *output);
  const bool needed = std::any_of(inputs.begin(), inputs.end(), [](const Tensor& x) { return x.requires_grad(); });
  if (!needed || !outputs[0]->device().context().record_gradients) return;

  // Numbers only order the nodes of one graph, so one counter serves every device.
  static std::atomic<uint64_t> count = 0;
  auto node = std::make_shared<Node>();
  node->name = name;
  node->order = count++;
  node->backward = std::move(backward);
  for (const Tensor& x : inputs) node->inputs.push_back(Graph::input(x));
  for (size_t i = 0; i < outputs.size(); ++i) {
    node->output_shapes.push_back(outputs[i]->shape());
    node->output_dtypes.push_back(outputs[i]->dtype());
    Graph::link(*outputs[i], node, static_cast<int>(i));
  }
}

Tensor record(const char* name, Tensor y, const std::vector<Tensor>& inputs,
              std::function<Gradients(const Tensor& dy, const Needs& needs)> backward) {
  Node::record(name, {&y}, inputs, [backward = std::move(backward)](const Gradients& dys, const Needs& needs) {
    return backward(dys[0], needs);
  });
  return y;
}

Tensor gradient_so_far(const Tensor& x) { return x.leaf() && !x.leaf()->shared ? x.leaf()->grad : Tensor(); }

Tensor without_gradient(const char* name, Tensor y, const std::vector<Tensor>& inputs) {
  return record(name, std::move(y), inputs, [name](const Tensor&, const Needs&) -> Gradients {
    fail(name, ": has no gradient, but one was asked for");
  });
}

void backward(const Tensor& root, const std::function<void(Leaf&)>& leaf_done) {
  check(root.numel() == 1, "backward: root is ", root.shape(), ", but must have one element");
  const std::shared_ptr<Node>& node = Graph::node(root);
  check(node != nullptr, "backward: no gradient was recorded for this tensor");

  Tensor one = empty_like(root);
  on(root.device(), "fill", [&](auto backend, Stream stream) {
    kernels::fill(backend, {one.data(), 1, 1.0f, one.dtype()}, stream);
  });
  std::vector<std::shared_ptr<Node>> nodes = reachable(node);
  node->arrived[static_cast<size_t>(Graph::output(root))] = one;

  const NoGrad no_grad(root.device());
  for (std::shared_ptr<Node>& current : nodes) {
    const bool arrived = std::any_of(current->arrived.begin(), current->arrived.end(),
                                     [](const Tensor& gradient) { return gradient.defined(); });
    check(arrived, current->name, ": no gradient arrived");
    run(*current, leaf_done);
    current = nullptr;  // with the closure gone this frees what nothing else keeps
  }
}

}  // namespace nanovlm
