// What several operations ask of their inputs. Kernels trust their arguments, so whatever they take for granted is
// checked here first, by what the host knows.
#pragma once
#include <initializer_list>

#include "engine/tensor.h"

namespace nanovlm {

struct NamedInput {
  const char* name;
  const Tensor& x;  // or undefined: not given
};

// For kernels that take no strides, and would read other numbers of a view with gaps.
inline void check_contiguous(const char* op, std::initializer_list<NamedInput> inputs) {
  for (const auto& [name, x] : inputs)
    check(!x.defined() || x.is_contiguous(), op, ": ", name, " is ", x.shape(), " with strides ", x.strides(),
          ", but must be contiguous");
}

inline bool is_float(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16; }

inline void check_float(const char* op, std::initializer_list<NamedInput> inputs) {
  for (const auto& [name, x] : inputs)
    check(!x.defined() || is_float(x.dtype()), op, ": ", name, " is ", x.shape(), " ", x.dtype(),
          ", but must be f32 or bf16");
}
inline void check_float_result(const char* op, const Tensor& x, DType dtype) {
  check(is_float(dtype), op, ": the result of x ", x.shape(), " is to be ", dtype, ", but must be f32 or bf16");
}

}  // namespace nanovlm
