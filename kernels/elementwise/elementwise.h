// What is left of elementwise arithmetic once the other kernels have fused theirs.
#pragma once
#include "kernels/types.h"

namespace nanovlm::kernels {

// y = x, rounded to the dtype of y
struct Cast {
  const void* x;  // [n] in
  void* y;        // [n] out
  int64_t n;
  DType in, out;
};

// y = a + b in fp32, rounded to the dtype of y. y may be a or b where the dtypes agree.
struct Add {
  const void *a, *b;  // [n] a_dtype, b_dtype
  void* y;            // [n] y_dtype
  int64_t n;
  DType a_dtype, b_dtype, y_dtype;
};

// y = x * factor * (*device_factor). y may be x.
struct Scale {
  const void* x;  // [n] dtype
  void* y;        // [n] dtype
  int64_t n;
  float factor;
  const float* device_factor;  // one number on the device, or null for 1
  DType dtype;
};

// *y = sum of x, added in a fixed order
struct Sum {
  const float* x;  // [n]
  float* y;
  int64_t n;
};

// y = value in every place
struct Fill {
  void* y;  // [n] dtype
  int64_t n;
  float value;
  DType dtype;
};

// y = x / 255: a picture's bytes as the numbers in [0, 1] that torchvision's ToTensor makes of them
struct UnitRange {
  const uint8_t* x;  // [n]
  float* y;          // [n]
  int64_t n;
};

template <class Backend>
void cast(Backend, const Cast&, Stream);
template <class Backend>
void add(Backend, const Add&, Stream);
template <class Backend>
void scale(Backend, const Scale&, Stream);
template <class Backend>
void sum(Backend, const Sum&, Stream);
template <class Backend>
void fill(Backend, const Fill&, Stream);
template <class Backend>
void unit_range(Backend, const UnitRange&, Stream);

}  // namespace nanovlm::kernels
