// The epilogue of a plain product.
#pragma once
#include <stdexcept>
#include <string>

#include "kernels/elements.cuh"
#include "kernels/gemm/gemm.h"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

inline void check_gemm(const std::string& name, const Matmul& m) {
  if (m.in != DType::bf16)
    throw std::invalid_argument(name + ": operands are " + name_of(m.in) + ", but only bf16 is supported");
  if (m.accumulate && m.out != DType::f32)
    throw std::invalid_argument(name + ": adds to a result of " + name_of(m.out) + ", but only f32 is supported");
}

// c = sums (+ bias) (+ c), rounded once.
struct StoreProduct {
  void* c;
  const void* bias;
  int64_t N;
  bool accumulate, vectors;
  DType out;

  explicit StoreProduct(const Matmul& m)
      : c(m.c),
        bias(m.bias),
        N(m.N),
        accumulate(m.accumulate),
        vectors(m.N % 4 == 0 && aligned(m.c, m.bias)),
        out(m.out) {}

  template <int W, class T>
  __device__ void store(T* row, int64_t column, Vec<float, W> value) const {
    if (bias) {
      const Vec<float, W> added = load_floats<W>(static_cast<const T*>(bias) + column);
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

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
