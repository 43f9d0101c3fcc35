// What attention's tensor-core kernels share: bf16 rows of D columns in shared memory, and their products.
//
// Rows lie D + 8 apart, so that the 8 rows of a matrix that ldmatrix loads are in different banks.
#pragma once
#include "kernels/attention/rows.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

constexpr int kMmaRows = 16;  // rows that a warp owns
constexpr int kMmaTile = 64;  // rows of a tile that all warps meet
constexpr int kMmaWarps = 4;  // of a block, at most
constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// 4 columns of either half of a head, from column d on, turned and rounded.
__device__ inline void rotate(Vec<bf16, 4>& low, Vec<bf16, 4>& high, Angles at, int d) {
  const Vec<float, 4> cos = ld16(at.cos + d), sin = ld16(at.sin + d);
  for (int i = 0; i < 4; ++i) {
    const float x = static_cast<float>(low[i]), y = static_cast<float>(high[i]);
    low[i] = to_bf16(x * cos[i] - y * sin[i]);
    high[i] = to_bf16(y * cos[i] + x * sin[i]);
  }
}

// to[r] = one head of row r, from(r), turned by angles(r); zeros where from(r) is null. Shared by `threads` threads.
// `rows` is a multiple of 8. Rows that lanes store together stand 4 apart: those are in different banks.
template <int D, class From, class AnglesOf>
__device__ void load_rotated(bf16* to, int rows, const From& from, const AnglesOf& angles, int thread, int threads) {
  constexpr int kParts = D / 8;  // of a row: 4 columns of either half, so that angles too are read side by side
  for (int i = thread; i < rows * kParts; i += threads) {
    const int turn = i / kParts, r = turn / 8 * 8 + turn % 8 / 2 + turn % 2 * 4, d = i % kParts * 4;
    const bf16* x = from(r);
    Vec<bf16, 4> low{}, high{};
    if (x) {
      low = ld8(x + d), high = ld8(x + d + D / 2);
      const Angles at = angles(r);
      if (at.cos) rotate(low, high, at, d);
    }
    st8(to + r * (D + 8) + d, low), st8(to + r * (D + 8) + d + D / 2, high);
  }
}

// Starts copying rows as they are; `any` is some address to name where from(r) is null, whose row becomes zeros.
template <int D, class From>
__device__ void copy_rows(bf16* to, int rows, const From& from, const bf16* any, int thread, int threads) {
  constexpr int kParts = D / 8;
  for (int i = thread; i < rows * kParts; i += threads) {
    const int r = i / kParts, d = i % kParts * 8;
    const bf16* x = from(r);
    cp_async16(to + r * (D + 8) + d, x ? x + d : any, x ? 16 : 0);
  }
}

// s[16, 8 N] += own[16, D] rows[8 N, D]^T
template <int D, int N>
__device__ void multiply_rows(float (&s)[N][4], const bf16* own, const bf16* rows) {
  const int lane = thread_in_block() % kWarp;
  const bf16* my_own = own + lane % 16 * (D + 8) + lane / 16 * 8;
  const bf16* mine = rows + (lane / 16 * 8 + lane % 8) * (D + 8) + lane / 8 % 2 * 8;
#pragma unroll
  for (int c = 0; c < D / 16; ++c) {
    uint32_t a[4];
    ldmatrix_x4(a, my_own + 16 * c);
#pragma unroll
    for (int j = 0; j < N / 2; ++j) {
      uint32_t b[4];
      ldmatrix_x4(b, mine + 16 * j * (D + 8) + 16 * c);
      const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
      mma_m16n8k16(s[2 * j], a, low);
      mma_m16n8k16(s[2 * j + 1], a, high);
    }
  }
}

// sum[16, D] += w[16, 8 N] rows[8 N, D], w rounded to bf16.
template <int D, int N>
__device__ void add_rows(float (&sum)[D / 8][4], const float (&w)[N][4], const bf16* rows) {
  const int lane = thread_in_block() % kWarp;
  const bf16* mine = rows + lane % 16 * (D + 8) + lane / 16 * 8;
#pragma unroll
  for (int k = 0; k < N / 2; ++k) {
    const uint32_t a[4] = {pack_bf16(w[2 * k][0], w[2 * k][1]), pack_bf16(w[2 * k][2], w[2 * k][3]),
                           pack_bf16(w[2 * k + 1][0], w[2 * k + 1][1]), pack_bf16(w[2 * k + 1][2], w[2 * k + 1][3])};
#pragma unroll
    for (int j = 0; j < D / 16; ++j) {
      uint32_t b[4];
      ldmatrix_x4_trans(b, mine + 16 * k * (D + 8) + 16 * j);
      const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
      mma_m16n8k16(sum[2 * j], a, low);
      mma_m16n8k16(sum[2 * j + 1], a, high);
    }
  }
}

// Turns N neighbours of either half of a gradient's row back, from column d on.
template <int N>
__device__ void turn_columns_back(float* low, float* high, Angles at, int d) {
  const Vec<float, N> cos = load_floats<N>(at.cos + d), sin = load_floats<N>(at.sin + d);
  for (int e = 0; e < N; ++e) {
    const float x = low[e], y = high[e];
    low[e] = x * cos[e] + y * sin[e];
    high[e] = y * cos[e] - x * sin[e];
  }
}

// Turns row lane / 4 + 8 half of a gradient back: both halves of a pair are the same lane's.
template <int D>
__device__ void turn_back(float (&sum)[D / 8][4], int half, Angles at) {
  if (!at.cos) return;
#pragma unroll
  for (int j = 0; j < D / 16; ++j)
    turn_columns_back<2>(&sum[j][2 * half], &sum[j + D / 16][2 * half], at, 8 * j + thread_in_block() % 4 * 2);
}

// Stores a warp's rows by way of its own place in shared memory: row r to to(r), for r < rows.
template <int D, class To>
__device__ void store_rows(bf16* own, const float (&sum)[D / 8][4], int rows, const To& to) {
  const int lane = thread_in_block() % kWarp;
  __syncwarp();  // what stood there has been read
  for (int half = 0; half < 2; ++half)
    for (int j = 0; j < D / 8; ++j)
      *reinterpret_cast<uint32_t*>(own + (lane / 4 + 8 * half) * (D + 8) + 8 * j + lane % 4 * 2) =
          pack_bf16(sum[j][2 * half], sum[j][2 * half + 1]);
  __syncwarp();
  for (int i = lane; i < rows * (D / 8); i += kWarp) {
    const int r = i / (D / 8), d = i % (D / 8) * 8;
    st16(to(r) + d, ld16(own + r * (D + 8) + d));
  }
}

// The sum or maximum over the four lanes that hold a row of a product.
__device__ inline float row_sum(float x) {
  x += shfl_xor(x, 1);
  return x + shfl_xor(x, 2);
}
__device__ inline float row_max(float x) {
  x = fmaxf(x, shfl_xor(x, 1));
  return fmaxf(x, shfl_xor(x, 2));
}

// Whether rows of D columns at `x`, `stride` apart, can be read by 16 bytes.
inline bool aligned_rows(const void* x, int64_t stride) {
  return reinterpret_cast<uintptr_t>(x) % 16 == 0 && stride % 8 == 0;
}
constexpr const char* kMmaDoes = "bf16 heads of size 32, 64 and 128, rows at 16-byte addresses";
inline bool for_tensor_cores(const AttentionShape& a) {
  return a.dtype == DType::bf16 && (a.D == 32 || a.D == 64 || a.D == 128) && aligned_rows(a.cos, 0) &&
         aligned_rows(a.sin, 0);
}

// Launches a kernel of blocks that own `rows` rows of every segment and key/value head: `matrices` rows of shared
// memory for each of theirs and of a tile's.
template <int D, class Kernel, class... Arguments>
void launch_mma(const char* name, Kernel kernel, const AttentionShape& shape, int64_t rows, int matrices, Stream stream,
                const Arguments&... arguments) {
  const int64_t warps = std::min<int64_t>(kMmaWarps, ceil_div(rows, kMmaRows));
  const int64_t tiles = ceil_div(rows, warps * kMmaRows);
  const int64_t bytes = (2 * kMmaTile + matrices * warps * kMmaRows) * (D + 8) * int64_t{sizeof(bf16)};
  launch(name, kernel, {shape.S * shape.G * tiles, warps * kWarp, bytes, stream}, arguments..., tiles);
}

// Calls f with the head size as a constant.
template <class F>
void with_head_size(int D, const F& f) {
  if (D == 32) return f(std::integral_constant<int, 32>{});
  if (D == 64) return f(std::integral_constant<int, 64>{});
  return f(std::integral_constant<int, 128>{});
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
