// Tensor: a counted view of storage on a device - shape, strides, dtype - and, where gradients are recorded, its place
// in the graph. Copying a Tensor copies the handle, never the numbers.
#pragma once
#include <functional>
#include <memory>
#include <ostream>
#include <vector>

#include "engine/device.h"
#include "engine/error.h"

namespace nanovlm {

struct Shape : std::vector<int64_t> {
  using std::vector<int64_t>::vector;
  int64_t numel() const;
};
std::ostream& operator<<(std::ostream& out, const Shape& shape);  // [2, 3]
inline std::ostream& operator<<(std::ostream& out, DType dtype) { return out << name_of(dtype); }

// Bytes on a device, given back when the last tensor that views them goes.
class Storage {
 public:
  Storage(const Device& device, int64_t bytes);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  char* data() const { return data_; }
  const Device& device() const { return device_; }

 private:
  Device device_;
  CachingAllocator& memory_;
  char* data_;
};

struct Node;  // autograd.h
struct Leaf;

class Tensor {
 public:
  Tensor() = default;  // no tensor: defined() is false
  Tensor(std::shared_ptr<Storage> storage, int64_t offset, Shape shape, Shape strides, DType dtype);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  const Shape& strides() const { return strides_; }  // in elements
  int64_t rank() const { return static_cast<int64_t>(shape_.size()); }
  int64_t size(int dim) const;  // negative dims count from the end
  int64_t numel() const { return numel_; }
  int64_t bytes() const { return numel_ * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  const Device& device() const { return storage_->device(); }
  bool is_contiguous() const;
  bool overlaps(const Tensor& other) const;  // whether the two span common memory

  // The first element. The typed forms check the dtype. Host code may dereference these on host devices only.
  void* data() const { return storage_ ? storage_->data() + offset_ * size_of(dtype_) : nullptr; }
  float* f32() const { return static_cast<float*>(typed(DType::f32)); }
  int32_t* i32() const { return static_cast<int32_t*>(typed(DType::i32)); }
  uint8_t* u8() const { return static_cast<uint8_t*>(typed(DType::u8)); }

  // Other views of the same numbers; not recorded for gradients (ops.h has the differentiable `view`).
  Tensor viewed(Shape shape) const;  // contiguous tensors only; the same numel
  Tensor slice(int dim, int64_t begin, int64_t end) const;

  // The one number of a tensor with one element, on the host.
  double item() const;

  // Gradients. A leaf is a tensor somebody asked the gradient of; every other tensor comes from a node, or from
  // nothing.
  Tensor& set_requires_grad();  // makes this a leaf
  bool requires_grad() const { return node_ != nullptr || leaf_ != nullptr; }
  const Tensor& grad() const;        // of a leaf; undefined before the first backward
  void set_grad(Tensor grad) const;  // of a leaf; a backward leaves the numbers of `grad` as they are
  const std::shared_ptr<Leaf>& leaf() const { return leaf_; }
  Tensor detach() const;  // the same numbers, without the graph

  // How to compute these numbers again from tensors that are kept anyway (norms, activations). A node that needs its
  // input later saves `recipe()` where there is one, and the numbers themselves are freed.
  using Recipe = std::function<Tensor()>;
  Tensor& set_recipe(Recipe recipe);
  bool has_recipe() const { return recipe_ != nullptr; }
  Recipe recipe() const;  // gives this very tensor where nothing cheaper is known

 private:
  friend class Graph;
  void* typed(DType expected) const;

  std::shared_ptr<Storage> storage_;
  int64_t offset_ = 0;
  Shape shape_, strides_;
  int64_t numel_ = 0;
  DType dtype_ = DType::f32;
  std::shared_ptr<Node> node_;
  int output_ = 0;  // which of the node's outputs this is
  std::shared_ptr<Leaf> leaf_;
  std::shared_ptr<const Recipe> recipe_;
};

Tensor empty(Shape shape, DType dtype, const Device& device);
Tensor empty_like(const Tensor& x);
Tensor zeros(Shape shape, DType dtype, const Device& device);
Tensor zeros_like(const Tensor& x);

// Between host memory and a device; the number of elements must agree.
template <class T>
Tensor from_host(const std::vector<T>& values, Shape shape, const Device& device);
std::vector<float> to_host(const Tensor& x);  // f32 and bf16, as f32
std::vector<int32_t> to_host_i32(const Tensor& x);
void copy_from_host(const Tensor& x, const void* values, int64_t bytes);
void copy_to_host(const Tensor& x, void* values, int64_t bytes);
Tensor to_device(const Tensor& x, const Device& device);  // x itself where it is there already

}  // namespace nanovlm
