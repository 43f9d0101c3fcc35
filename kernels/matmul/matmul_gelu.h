// A product with GELU behind it, and the one that carries a gradient back through GELU:
//
//   matmul_gelu           x = op(a) op(b) (+ bias),   c = gelu(x)
//   matmul_gelu_backward  c = op(a) op(b) gelu'(x),   bias_gradient[n] += sum over m of c[m, n]
//
// with the GELU of kernels/gelu/gelu.h. They are the product and the kernels that follow it, each result rounded to
// `out`. Where the cuda device's library does it all in the product's epilogue (fused_* below), GELU and its gradient
// take the fp32 sums before they are rounded, and the sums of columns are rounded to `out` before they are added.
#pragma once
#include <type_traits>

#include "kernels/gelu/gelu.h"
#include "kernels/matmul/matmul.h"

namespace nanovlm::kernels {

struct MatmulGelu {
  Matmul product;  // of c; without `accumulate`
  void* x;         // [M, N] out, or null: not kept
};

struct MatmulGeluBackward {
  Matmul product;        // of c; without bias and `accumulate`
  const void* x;         // [M, N] out
  float* bias_gradient;  // [N], or null
};

// By one product of the library's. False, with nothing done, where it has none: at least for fp32, for which its GELU
// is not known to be exact enough, and where N is no multiple of 8.
bool fused_matmul_gelu(Cuda, const MatmulGelu&, Stream);
bool fused_matmul_gelu_backward(Cuda, const MatmulGeluBackward&, Stream);

template <class Backend>
void matmul_gelu(Backend backend, const MatmulGelu& a, Stream stream) {
  if constexpr (std::is_same_v<Backend, Cuda>)
    if (fused_matmul_gelu(backend, a, stream)) return;
  Matmul sum = a.product;
  if (a.x) sum.c = a.x;
  matmul(backend, sum, stream);
  gelu(backend, Gelu{sum.c, a.product.c, sum.M * sum.N, sum.out}, stream);
}

template <class Backend>
void matmul_gelu_backward(Backend backend, const MatmulGeluBackward& a, Stream stream) {
  if constexpr (std::is_same_v<Backend, Cuda>)
    if (fused_matmul_gelu_backward(backend, a, stream)) return;
  const Matmul& p = a.product;
  matmul(backend, p, stream);
  gelu_backward(backend, GeluBackward{a.x, p.c, p.c, p.M * p.N, p.out}, stream);
  if (a.bias_gradient) column_sum(backend, ColumnSum{p.c, a.bias_gradient, p.M, p.N, p.out}, stream);
}

}  // namespace nanovlm::kernels
