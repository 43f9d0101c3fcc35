// The matrix product, row-major:  c[M, N] = op(a)[M, K] op(b)[K, N] (+ bias[N]) (+ c)
//
// a and b have `in`, c has `out`. Products and sums are fp32 (inside a library possibly in another order from one shape
// to the next, but the same order for the same shape and number of threads); c is rounded once, on store. Supported: in
// = f32 with out = f32; in = bf16 with out = bf16 or f32.
#pragma once
#include <vector>

#include "kernels/types.h"

namespace nanovlm::kernels {

struct Matmul {
  const void* a;      // [M, K], or [K, M] if transpose_a
  const void* b;      // [K, N], or [N, K] if transpose_b
  void* c;            // [M, N]
  const void* bias;  // [N] out, or null
  int64_t M, N, K;
  bool transpose_a, transpose_b;
  bool accumulate;  // add to what c holds (out = f32 only)
  DType in, out;
};

// y[N] += sum over rows of x[R, N]: the gradient of a bias. Rows are added in a fixed order.
struct ColumnSum {
  const void* x;  // [R, N] dtype
  float* y;       // [N]
  int64_t R, N;
  DType dtype;
};

template <class Backend>
void matmul(Backend, const Matmul&, Stream);
// Several products of the same a (M, K, in and transpose_a agree too), with the numbers that matmul gives. A token's
// step through a model is bound by memory and made of small products: together they are one launch.
template <class Backend>
void matmul_each(Backend, const std::vector<Matmul>&, Stream);
template <class Backend>
void column_sum(Backend, const ColumnSum&, Stream);

}  // namespace nanovlm::kernels
