// The matrix product of the cuda device: cuBLASLt's (products.h).
#include "kernels/matmul/matmul.h"

#include <algorithm>

#include "kernels/cuda/products.h"
#include "kernels/elementwise/elementwise.h"

namespace nanovlm::kernels {

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

}  // namespace nanovlm::kernels
