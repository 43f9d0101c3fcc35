// The modality projector on tensor cores: the tiles of gemm/tile.cuh over x as if it were shuffled.
//
// Of the K features of a token, f * C lie together in x, f times: a chunk of 16 bytes is found by four divisions and
// copied as one where f * C is a multiple of 8; else entry by entry. Bound by arithmetic, as the product is.
#include "kernels/pixel_shuffle/projector.h"

#include "kernels/elements.cuh"
#include "kernels/gemm/store.cuh"
#include "kernels/gemm/tile.cuh"

namespace nanovlm::kernels {
namespace {

// Where feature `column` of token `row` lies in [B, n * n, C], in 32 bits, which save registers.
struct Shuffle {
  int C, n, f, side, run;  // tokens in a row of a picture; features that lie together

  Shuffle(int64_t C, int n, int f) : C(static_cast<int>(C)), n(n), f(f), side(n / f), run(f * this->C) {}

  __device__ int offset(int64_t row, int64_t column) const {
    const int token = static_cast<int>(row), k = static_cast<int>(column);
    const int above = token / side;  // rows of tokens over all pictures
    return ((above * f + k / run) * n + token % side * f) * C + k % run;
  }
};

struct ShuffledRows {
  const bf16* data;
  Shuffle shuffle;

  __device__ const bf16* at(int64_t row, int64_t column) const { return data + shuffle.offset(row, column); }
};

// Sums, rounded, at their places in [B, n * n, C].
template <class T>
struct StoreUnshuffled {
  T* dx;
  Shuffle shuffle;
  int64_t K;
  bool together;  // four neighbours

  __device__ void operator()(int64_t row, int64_t column, const Vec<float, 4>& sums) const {
    if (together) {
      if (column < K) store_floats<4>(dx + shuffle.offset(row, column), sums);
      return;
    }
    for (int i = 0; i < 4; ++i)
      if (column + i < K) dx[shuffle.offset(row, column + i)] = round_to<T>(sums[i]);
  }
};

template <bool kAlongK, class Arguments>
GemmOperand<kAlongK, ShuffledRows> shuffled(const Arguments& a, int64_t R, int64_t K) {
  const bool by_chunks = a.f * a.C % 8 == 0 && reinterpret_cast<uintptr_t>(a.x) % 16 == 0;
  return {{a.x, {a.C, a.n, a.f}}, R, K, by_chunks};
}

// Tokens of all pictures, where x is small enough.
template <class Arguments>
int64_t tokens(const Arguments& a) {
  if (a.B * a.n * a.n * a.C > INT32_MAX)
    throw std::invalid_argument("projector: x has " + std::to_string(a.B * a.n * a.n * a.C) +
                                " entries, but at most 2^31 - 1 are supported");
  return a.B * (a.n / a.f) * (a.n / a.f);
}

}  // namespace

template <>
void projector(ThisBackend, const Projector& a, Stream stream) {
  const int64_t R = tokens(a), K = a.C * a.f * a.f, N = a.N;
  if (R * N == 0) return;
  const Matmul product{a.x, a.weight, a.y, nullptr, R, N, K, false, true, false, DType::bf16, DType::bf16};
  launch_gemm("projector", shuffled<true>(a, R, K), gemm_operand<true>(a.weight, N, K), StoreProduct(product), R, N, K,
              stream);
}

template <>
void projector_backward(ThisBackend, const ProjectorBackward& a, Stream stream) {
  const int64_t R = tokens(a), K = a.C * a.f * a.f, N = a.N;
  if (a.dx && R * K > 0) {
    with_float(a.dx_dtype, [&]<class T>(Type<T>) {
      const StoreUnshuffled<T> store{static_cast<T*>(a.dx), {a.C, a.n, a.f}, K, a.f * a.C % 4 == 0 && aligned(a.dx)};
      launch_gemm("projector_dx", gemm_operand<true>(a.dy, R, N), gemm_operand<false>(a.weight, K, N), store, R, K, N,
                  stream);
    });
  }
  if (a.dweight && N * K > 0) {
    const Matmul product{a.dy, a.x, a.dweight, nullptr, N, K, R, true, false, a.accumulate, DType::bf16, DType::f32};
    launch_gemm("projector_dweight", gemm_operand<false>(a.dy, N, R), shuffled<false>(a, R, K), StoreProduct(product),
                N, K, R, stream);
  }
}

}  // namespace nanovlm::kernels
