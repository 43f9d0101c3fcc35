// The matrix product of the cuda device: cuBLASLt's (products.h).
#include <algorithm>

#include "kernels/cuda/products.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/matmul/matmul_gelu.h"

namespace nanovlm::kernels {
namespace {

// Whether the library may have the product with GELU: it asks for rows of x that lie a multiple of 8 numbers apart.
bool may_fuse(const Matmul& a) {
  return a.in == DType::bf16 && a.out == DType::bf16 && a.N % 8 == 0 && a.M > 0 && a.N > 0 && a.K > 0;
}

}  // namespace

template <>
void matmul(Cuda, const Matmul& a, Stream stream) {
  if (a.M == 0 || a.N == 0) return;
  cuda::Products& products = cuda::Gpu::of(stream, "matmul").products();
  if (a.K > 0) return products.run(a);
  // cuBLASLt multiplies at least one term: here one that is zero.
  const int64_t n = std::max(a.M, a.N);
  Scratch zeros("matmul", stream, n * size_of(a.in));
  fill(Cuda{}, {zeros.floats(), n, 0.0f, a.in}, stream);
  Matmul one_term = a;
  one_term.a = one_term.b = zeros.floats();
  one_term.K = 1;
  products.run(one_term);
}

template <>
void matmul_each(Cuda backend, const std::vector<Matmul>& products, Stream stream) {
  for (const Matmul& a : products) matmul(backend, a, stream);
}

bool fused_matmul_gelu(Cuda, const MatmulGelu& a, Stream stream) {
  if (!may_fuse(a.product)) return false;
  return cuda::Gpu::of(stream, "matmul_gelu").products().run(a.product, {cuda::Epilogue::gelu, a.x, nullptr});
}

bool fused_matmul_gelu_backward(Cuda backend, const MatmulGeluBackward& a, Stream stream) {
  const Matmul& p = a.product;
  if (!may_fuse(p)) return false;
  cuda::Products& products = cuda::Gpu::of(stream, "matmul_gelu_backward").products();
  void* const x = const_cast<void*>(a.x);
  if (!a.bias_gradient) return products.run(p, {cuda::Epilogue::gelu_backward, x, nullptr});
  Scratch sums("matmul_gelu_backward", stream, p.N * size_of(p.out));  // the library sets what is to be added here
  if (!products.run(p, {cuda::Epilogue::gelu_backward, x, sums.floats()})) return false;
  add(backend, {a.bias_gradient, sums.floats(), a.bias_gradient, p.N, DType::f32, p.out, DType::f32}, stream);
  return true;
}

}  // namespace nanovlm::kernels
