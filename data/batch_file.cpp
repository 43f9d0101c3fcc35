#include "data/batch_file.h"

namespace nanovlm {
namespace {

// The i-th batch of a stack, or the whole.
Tensor part(const Tensor& x, bool stacked, int64_t i) {
  if (!x.defined() || !stacked) return x;
  Shape shape(x.shape().begin() + 1, x.shape().end());
  return x.slice(0, i, i + 1).viewed(shape);
}

Tensor to_mask(const Tensor& x) {
  if (!x.defined() || x.dtype() == DType::u8) return x;
  Tensor y = empty(x.shape(), DType::u8, x.device());
  for (int64_t i = 0; i < x.numel(); ++i) y.u8()[i] = x.i32()[i] != 0;
  return y;
}

}  // namespace

BatchFile::BatchFile(const std::string& path) : device_(Device::open("cpu")) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const char* images = file.contains("images") ? "images" : "images_u8";
  for (const char* name : {images, "input_ids", "labels"})
    check(file.contains(name), path, ": tensor \"", name, "\" is missing",
          name == images ? "; expected \"images\" or \"images_u8\"" : "");
  images_ = file.read(images, device_);
  input_ids_ = file.read("input_ids", device_);
  labels_ = file.read("labels", device_);
  if (file.contains("attention_mask")) attention_mask_ = file.read("attention_mask", device_);

  const int64_t rank = input_ids_.rank();
  check(rank == 2 || rank == 3, path, ": input_ids is ", input_ids_.shape(), ", expected [B, T] or [N, B, T]");
  stacked_ = rank == 3;
  check(images_.rank() == rank + 2, path, ": ", images, " is ", images_.shape(), ", expected ",
        stacked_ ? "[N, B, 3, S, S]" : "[B, 3, S, S]");
  check(images_.dtype() == DType::f32 || images_.dtype() == DType::u8, path, ": ", images, " is ", images_.dtype(),
        ", expected f32 or u8");
  for (int64_t i = 0; i + 1 < rank; ++i)
    check(images_.size(static_cast<int>(i)) == input_ids_.size(static_cast<int>(i)), path, ": ", images, " is ",
          images_.shape(), ", but input_ids is ", input_ids_.shape());
  check(input_ids_.dtype() == DType::i32 && labels_.dtype() == DType::i32, path, ": input_ids is ", input_ids_.dtype(),
        " and labels is ", labels_.dtype(), ", expected integers");
  check(labels_.shape() == input_ids_.shape(), path, ": labels is ", labels_.shape(), ", but input_ids is ",
        input_ids_.shape());
  check(!attention_mask_.defined() || attention_mask_.shape() == input_ids_.shape(), path, ": attention_mask is ",
        attention_mask_.shape(), ", but input_ids is ", input_ids_.shape());
  check(!attention_mask_.defined() || attention_mask_.dtype() != DType::f32, path,
        ": attention_mask is f32, expected integers");
}

Batch BatchFile::read(int64_t i) const {
  check(i >= 0 && i < size(), "batch ", i, " of ", size());
  return {part(images_, stacked_, i), part(input_ids_, stacked_, i),
          to_mask(part(attention_mask_, stacked_, i)), part(labels_, stacked_, i)};
}

}  // namespace nanovlm
