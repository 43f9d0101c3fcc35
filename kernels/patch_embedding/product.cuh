// A product whose operands are gathered and whose result is scattered: c(m, n) = sum over k of a(m, k) b(n, k).
//
// An operand is data[outer(m or n) + inner(k)]: so pixels of patches need no copy in rows. It is rounded to T on its
// way into shared memory. bf16 is multiplied by tensor cores, fp32 by multiply-adds; sums are fp32, k rising.
#pragma once
#include "kernels/device.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

constexpr int kProductTile = 64;   // rows and columns of c that a block owns
constexpr int kProductDepth = 32;  // of k, at a time
constexpr int kProductThreads = 128;

// Where a thread's 32 sums stand in the tile, and where entry (row, k) of an operand's tile lies in shared memory. An
// operand whose neighbours in memory are rows may lie there with rows running along: kTurned says so.
template <class T>
struct TileSums;

// Thread t owns rows t / 16 + 8 i and columns t % 16 + 16 j.
template <>
struct TileSums<float> {
  static constexpr int kStep = kProductDepth + 1;  // columns that lanes read together lie in different banks
  static constexpr int kEntries = kProductTile * kStep;
  static constexpr int kRows = 8, kColumns = 4;
  float sum[kRows][kColumns] = {};

  template <bool kTurned>
  static __device__ int place(int row, int k) {
    return row * kStep + k;
  }

  template <bool kTurnedA, bool kTurnedB>
  __device__ void add(const float* a, const float* b) {
    a += thread_in_block() / 16 * kStep, b += thread_in_block() % 16 * kStep;
#pragma unroll 4
    for (int k = 0; k < kProductDepth; ++k) {
      float x[kRows], y[kColumns];
      for (int i = 0; i < kRows; ++i) x[i] = a[8 * i * kStep + k];
      for (int j = 0; j < kColumns; ++j) y[j] = b[16 * j * kStep + k];
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kColumns; ++j) sum[i][j] += x[i] * y[j];
    }
  }

  template <class F>
  __device__ void for_each(const F& f) const {
    for (int i = 0; i < kRows; ++i)
      for (int j = 0; j < kColumns; ++j) {
        Vec<float, 1> one;
        one[0] = sum[i][j];
        f(thread_in_block() / 16 + 8 * i, thread_in_block() % 16 + 16 * j, one);
      }
  }
};

// A warp owns a quarter of the tile: two by four fragments of mma_m16n8k16.
template <>
struct TileSums<bf16> {
  // The 8 rows of a matrix that ldmatrix loads lie in different banks.
  static constexpr int kStep = kProductDepth + 8, kTurnedStep = kProductTile + 8;
  static constexpr int kEntries = kProductTile * kStep;  // the larger of both forms
  float sum[2][4][4] = {};

  template <bool kTurned>
  static __device__ int place(int row, int k) {
    return kTurned ? k * kTurnedStep + row : row * kStep + k;
  }
  // Four matrices of 8 x 8: of 16 rows and 16 k, rows first (a), or k first (b).
  template <bool kTurned>
  static __device__ void load(uint32_t (&x)[4], const bf16* tile, int row, int k) {
    if constexpr (kTurned)
      ldmatrix_x4_trans(x, tile + place<true>(row, k));
    else
      ldmatrix_x4(x, tile + place<false>(row, k));
  }

  template <bool kTurnedA, bool kTurnedB>
  __device__ void add(const bf16* a, const bf16* b) {
    const int lane = thread_in_block() % kWarp, warp = thread_in_block() / kWarp;
    const int first = lane % 8, second = lane / 8 % 2 * 8, third = lane / 16 * 8;
    const int a_row = warp / 2 * 32 + second + (kTurnedA ? 0 : first), a_k = third + (kTurnedA ? first : 0);
    const int b_row = warp % 2 * 32 + third + (kTurnedB ? 0 : first), b_k = second + (kTurnedB ? first : 0);
    for (int k = 0; k < kProductDepth; k += 16) {
      uint32_t x[2][4];
      for (int i = 0; i < 2; ++i) load<kTurnedA>(x[i], a, a_row + 16 * i, a_k + k);
      for (int j = 0; j < 4; j += 2) {
        uint32_t y[4];
        load<kTurnedB>(y, b, b_row + 8 * j, b_k + k);
        const uint32_t low[2] = {y[0], y[1]}, high[2] = {y[2], y[3]};
        for (int i = 0; i < 2; ++i) {
          mma_m16n8k16(sum[i][j], x[i], low);
          mma_m16n8k16(sum[i][j + 1], x[i], high);
        }
      }
    }
  }

  template <class F>
  __device__ void for_each(const F& f) const {
    const int lane = thread_in_block() % kWarp, warp = thread_in_block() / kWarp;
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 4; ++j)
        for (int half = 0; half < 2; ++half) {
          Vec<float, 2> pair;
          pair[0] = sum[i][j][2 * half], pair[1] = sum[i][j][2 * half + 1];
          f(warp / 2 * 32 + 16 * i + lane / 4 + 8 * half, warp % 2 * 32 + 8 * j + lane % 4 * 2, pair);
        }
  }
};

// Offsets of an operand's rows, and of the k of one step.
struct Offsets {
  int64_t* outer;  // [kProductTile]
  int64_t* inner;  // [kProductDepth]
};

// to[row][k] = the operand's entries, zeros outside. Neighbouring threads take neighbouring entries in memory: along k,
// or along the rows.
template <class T, class Operand>
__device__ void load_operand(T* to, const Operand& x, const Offsets& at, int64_t rows, int64_t depth) {
  for (int i = thread_in_block(); i < kProductTile * kProductDepth; i += kProductThreads) {
    const int row = Operand::kAlongK ? i / kProductDepth : i % kProductTile;
    const int k = Operand::kAlongK ? i % kProductDepth : i / kProductTile;
    const bool inside = row < rows && k < depth;
    to[TileSums<T>::template place<!Operand::kAlongK>(row, k)] =
        inside ? round_to<T>(static_cast<float>(x.data[at.outer[row] + at.inner[k]])) : round_to<T>(0.0f);
  }
}

// Block (x, y) owns columns from 64 x and rows from 64 y.
template <class T, class A, class B, class Result>
__global__ void __launch_bounds__(kProductThreads)
    product_kernel(const A a, const B b, const Result result, int64_t M, int64_t N, int64_t K) {
  GPU_SHARED(T, a_tile, [TileSums<T>::kEntries]);
  GPU_SHARED(T, b_tile, [TileSums<T>::kEntries]);
  GPU_SHARED(int64_t, outer, [2 * kProductTile]);
  GPU_SHARED(int64_t, inner, [2 * kProductDepth]);
  const int thread = thread_in_block();
  const int64_t row0 = int64_t(blockIdx.y) * kProductTile, column0 = int64_t(blockIdx.x) * kProductTile;
  const Offsets a_at{outer + 0, inner + 0}, b_at{outer + kProductTile, inner + kProductDepth};

  outer[thread] = thread < kProductTile ? a.outer(row0 + thread) : b.outer(column0 + thread - kProductTile);
  TileSums<T> sums;
  for (int64_t k0 = 0; k0 < K; k0 += kProductDepth) {
    if (thread < 2 * kProductDepth)
      inner[thread] = thread < kProductDepth ? a.inner(k0 + thread) : b.inner(k0 + thread - kProductDepth);
    __syncthreads();
    load_operand(static_cast<T*>(a_tile), a, a_at, M - row0, K - k0);
    load_operand(static_cast<T*>(b_tile), b, b_at, N - column0, K - k0);
    __syncthreads();
    sums.template add<!A::kAlongK, !B::kAlongK>(a_tile, b_tile);
  }
  sums.for_each([&]<int W>(int row, int column, const Vec<float, W>& sum) {
    const int64_t r = row0 + row, c = column0 + column;
    if (r >= M) return;
    if (W > 1 && result.pairs && c + W <= N) return result.store(r, c, sum);
    for (int i = 0; i < W && c + i < N; ++i) {
      Vec<float, 1> one;
      one[0] = sum[i];
      result.store(r, c + i, one);
    }
  });
}

template <class T, class A, class B, class Result>
void launch_product(const char* name, const A& a, const B& b, const Result& result, int64_t M, int64_t N, int64_t K,
                    Stream stream) {
  const LaunchShape shape{{ceil_div(N, kProductTile), ceil_div(M, kProductTile)}, kProductThreads, 0, stream};
  launch(name, product_kernel<T, A, B, Result>, shape, a, b, result, M, N, K);
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
