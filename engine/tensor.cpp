#include "engine/tensor.h"

#include <algorithm>

#include "engine/autograd.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/parallel.h"

namespace nanovlm {

int64_t Shape::numel() const {
  int64_t n = 1;
  for (const int64_t size : *this) n *= size;
  return n;
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << '[';
  for (size_t i = 0; i < shape.size(); ++i) out << (i ? ", " : "") << shape[i];
  return out << ']';
}

Storage::Storage(const Device& device, int64_t bytes)
    : device_(device),
      memory_(*device.context().source),
      data_(static_cast<char*>(memory_.allocate(static_cast<size_t>(bytes), device.context().memory_class))) {}

Storage::~Storage() { memory_.free(data_); }

Tensor::Tensor(std::shared_ptr<Storage> storage, int64_t offset, Shape shape, Shape strides, DType dtype)
    : storage_(std::move(storage)),
      offset_(offset),
      shape_(std::move(shape)),
      strides_(std::move(strides)),
      numel_(shape_.numel()),
      dtype_(dtype) {}

int64_t Tensor::size(int dim) const {
  const int64_t i = dim < 0 ? dim + rank() : dim;
  check(i >= 0 && i < rank(), "size: dim is ", dim, ", but the tensor is ", shape_);
  return shape_[static_cast<size_t>(i)];
}

bool Tensor::is_contiguous() const {
  int64_t expected = 1;
  for (size_t i = shape_.size(); i-- > 0;) {
    if (shape_[i] != 1 && strides_[i] != expected) return false;
    expected *= shape_[i];
  }
  return true;
}

bool Tensor::overlaps(const Tensor& other) const {
  if (!defined() || storage_ != other.storage_ || numel_ == 0 || other.numel_ == 0) return false;
  const auto end = [](const Tensor& x) {
    int64_t last = x.offset_;
    for (size_t i = 0; i < x.shape_.size(); ++i) last += (x.shape_[i] - 1) * x.strides_[i];
    return (last + 1) * size_of(x.dtype_);
  };
  return offset_ * size_of(dtype_) < end(other) && other.offset_ * size_of(other.dtype_) < end(*this);
}

void* Tensor::typed(DType expected) const {
  check(dtype_ == expected, "tensor is ", dtype_, ", but is used as ", expected);
  return data();
}

namespace {
Shape contiguous_strides(const Shape& shape) {
  Shape strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= shape[i];
  }
  return strides;
}
}  // namespace

Tensor Tensor::viewed(Shape shape) const {
  check(is_contiguous(), "view: the tensor of shape ", shape_, " is not contiguous");
  check(shape.numel() == numel_, "view: shape is ", shape, ", but the tensor is ", shape_);
  Shape strides = contiguous_strides(shape);
  Tensor y(storage_, offset_, shape, std::move(strides), dtype_);
  if (recipe_) y.set_recipe([recipe = recipe_, shape] { return (*recipe)().viewed(shape); });
  return y;
}

Tensor Tensor::slice(int dim, int64_t begin, int64_t end) const {
  const size_t i = static_cast<size_t>(dim < 0 ? dim + rank() : dim);
  check(i < shape_.size() && begin >= 0 && begin <= end && end <= shape_[i], "slice: dim ", dim, " from ", begin,
        " to ", end, " of a tensor of shape ", shape_);
  Shape shape = shape_;
  shape[i] = end - begin;
  return Tensor(storage_, offset_ + begin * strides_[i], std::move(shape), strides_, dtype_);
}

double Tensor::item() const {
  check(numel_ == 1, "item: the tensor is ", shape_, ", but must have one element");
  return to_host(*this)[0];
}

Tensor& Tensor::set_requires_grad() {
  check(!node_, "set_requires_grad: the tensor is the result of ", node_ ? node_->name : "", ", not a leaf");
  if (!leaf_) leaf_ = std::make_shared<Leaf>();
  return *this;
}

const Tensor& Tensor::grad() const {
  check(leaf_ != nullptr, "grad: the tensor of shape ", shape_, " is not a leaf");
  return leaf_->grad;
}

void Tensor::set_grad(Tensor grad) const {
  check(leaf_ != nullptr, "set_grad: the tensor of shape ", shape_, " is not a leaf");
  leaf_->grad = std::move(grad);
  leaf_->shared = true;
}

Tensor Tensor::detach() const {
  Tensor x = *this;
  x.node_ = nullptr;
  x.leaf_ = nullptr;
  x.recipe_ = nullptr;
  return x;
}

Tensor& Tensor::set_recipe(Recipe recipe) {
  recipe_ = std::make_shared<const Recipe>(std::move(recipe));
  return *this;
}

Tensor::Recipe Tensor::recipe() const {
  if (recipe_) return *recipe_;
  return [x = detach()] { return x; };
}

Tensor empty(Shape shape, DType dtype, const Device& device) {
  const int64_t bytes = shape.numel() * size_of(dtype);
  Shape strides = contiguous_strides(shape);
  return Tensor(std::make_shared<Storage>(device, bytes), 0, std::move(shape), std::move(strides), dtype);
}

Tensor empty_like(const Tensor& x) { return empty(x.shape(), x.dtype(), x.device()); }

Tensor zeros(Shape shape, DType dtype, const Device& device) {
  Tensor y = empty(std::move(shape), dtype, device);
  // Zero bits are zero in every dtype, so whatever the dtype is, the bytes are filled as fp32 where they divide by
  // four.
  if (const DType as = y.bytes() % 4 == 0 ? DType::f32 : DType::bf16; y.bytes() % size_of(as) == 0)
    on(device, "fill", [&](auto backend, Stream stream) {
      kernels::fill(backend, {y.data(), y.bytes() / size_of(as), 0.0f, as}, stream);
    });
  else
    copy_from_host(y, std::vector<char>(static_cast<size_t>(y.bytes())).data(), y.bytes());
  return y;
}

Tensor zeros_like(const Tensor& x) { return zeros(x.shape(), x.dtype(), x.device()); }

void copy_from_host(const Tensor& x, const void* values, int64_t bytes) {
  check(x.is_contiguous() && bytes == x.bytes(), "copy_from_host: ", bytes, " bytes for a tensor of shape ", x.shape(),
        " and ", x.bytes(), " bytes");
  x.device().upload(x.data(), values, bytes);
}

void copy_to_host(const Tensor& x, void* values, int64_t bytes) {
  check(x.is_contiguous() && bytes == x.bytes(), "copy_to_host: ", bytes, " bytes from a tensor of shape ", x.shape(),
        " and ", x.bytes(), " bytes");
  x.device().download(values, x.data(), bytes);
}

namespace {
template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>) return DType::f32;
  if constexpr (std::is_same_v<T, bf16>) return DType::bf16;
  if constexpr (std::is_same_v<T, int32_t>) return DType::i32;
  return DType::u8;
}
}  // namespace

template <class T>
Tensor from_host(const std::vector<T>& values, Shape shape, const Device& device) {
  check(static_cast<int64_t>(values.size()) == shape.numel(), "from_host: ", values.size(), " values for shape ",
        shape);
  Tensor x = empty(std::move(shape), dtype_of<T>(), device);
  copy_from_host(x, values.data(), x.bytes());
  return x;
}
template Tensor from_host(const std::vector<float>&, Shape, const Device&);
template Tensor from_host(const std::vector<bf16>&, Shape, const Device&);
template Tensor from_host(const std::vector<int32_t>&, Shape, const Device&);
template Tensor from_host(const std::vector<uint8_t>&, Shape, const Device&);

std::vector<float> to_host(const Tensor& x) {
  std::vector<float> values(static_cast<size_t>(x.numel()));
  if (x.dtype() == DType::f32) {
    copy_to_host(x, values.data(), x.bytes());
    return values;
  }
  check(x.dtype() == DType::bf16, "to_host: tensor is ", x.dtype(), ", but must be f32 or bf16");
  std::vector<bf16> rounded(values.size());
  copy_to_host(x, rounded.data(), x.bytes());
  kernels::parallel_for(x.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
    std::transform(rounded.begin() + begin, rounded.begin() + end, values.begin() + begin,
                   [](bf16 value) { return static_cast<float>(value); });
  });
  return values;
}

std::vector<int32_t> to_host_i32(const Tensor& x) {
  check(x.dtype() == DType::i32, "to_host_i32: tensor is ", x.dtype());
  std::vector<int32_t> values(static_cast<size_t>(x.numel()));
  copy_to_host(x, values.data(), x.bytes());
  return values;
}

Tensor to_device(const Tensor& x, const Device& device) {
  if (!x.defined() || x.device() == device) return x;
  Tensor y = empty(x.shape(), x.dtype(), device);
  if (x.device().is_host()) {
    copy_from_host(y, x.data(), x.bytes());
  } else {
    std::vector<char> bytes(static_cast<size_t>(x.bytes()));
    copy_to_host(x, bytes.data(), x.bytes());
    copy_from_host(y, bytes.data(), x.bytes());
  }
  return y;
}

}  // namespace nanovlm
