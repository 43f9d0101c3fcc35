// The matrix product of bf16 on tensor cores: tile.cuh, with c as the epilogue.
#include "kernels/gemm/gemm.h"

#include <stdexcept>

#include "kernels/elements.cuh"
#include "kernels/gemm/tile.cuh"

namespace nanovlm::kernels {
namespace {

// c = sums (+ bias) (+ c), rounded once.
struct StoreProduct {
  void* c;
  const float* bias;
  int64_t N;
  bool accumulate, vectors;
  DType out;

  template <int W, class T>
  __device__ void store(T* row, int64_t column, Vec<float, W> value) const {
    if (bias) {
      const Vec<float, W> added = load_floats<W>(bias + column);
      for (int i = 0; i < W; ++i) value[i] += added[i];
    }
    if (accumulate) {
      const Vec<float, W> before = load_floats<W>(row + column);
      for (int i = 0; i < W; ++i) value[i] += before[i];
    }
    store_floats<W>(row + column, value);
  }

  template <class T>
  __device__ void store_part(T* row, int64_t column, const Vec<float, 4>& sums) const {
    if (vectors) {
      if (column < N) store<4>(row, column, sums);
      return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (column + i < N) store<1>(row, column + i, Vec<float, 1>{sums[i]});
  }

  __device__ void operator()(int64_t row, int64_t column, const Vec<float, 4>& sums) const {
    if (out == DType::f32)
      store_part(static_cast<float*>(c) + row * N, column, sums);
    else
      store_part(static_cast<bf16*>(c) + row * N, column, sums);
  }
};

}  // namespace

template <>
void gemm(ThisBackend, const Matmul& m, Stream stream) {
  if (m.in != DType::bf16)
    throw std::invalid_argument("gemm: its operands are " + std::string(name_of(m.in)) +
                                ", but only bf16 is supported");
  if (m.accumulate && m.out != DType::f32)
    throw std::invalid_argument("gemm: adds to a result of " + std::string(name_of(m.out)) +
                                ", but only f32 is supported");
  if (m.M == 0 || m.N == 0) return;
  const StoreProduct epilogue{m.c, m.bias, m.N, m.accumulate, m.N % 4 == 0 && aligned(m.c, m.bias), m.out};
  const auto multiply = [&]<bool kTransposeA, bool kTransposeB>() {
    launch_gemm<kTransposeA, kTransposeB>("gemm", static_cast<const bf16*>(m.a), static_cast<const bf16*>(m.b),
                                          epilogue, m.M, m.N, m.K, stream);
  };
  if (m.transpose_a)
    m.transpose_b ? multiply.operator()<true, true>() : multiply.operator()<true, false>();
  else
    m.transpose_b ? multiply.operator()<false, true>() : multiply.operator()<false, false>();
}

}  // namespace nanovlm::kernels
