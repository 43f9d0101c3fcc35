// The arithmetic of attention by plain fp32 multiply-adds, for any head size up to 128: rows that a warp owns meet
// tiles of rows in shared memory.
//
// A warp owns 8 rows; lane l has row l / 4, of whose products with the 32 rows of a tile it makes l % 4, l % 4 + 4, ...
// and of whose sums two neighbours of every 8 quads. Shared rows are kWidth columns, zeros from D on, and 4 more: the
// rows that lanes read together then lie in different banks, and so do the quads that the lanes of two rows store.
#pragma once
#include "kernels/attention/rows.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

constexpr int kTileRows = 32;
constexpr int kOwnRows = 8;                      // of a warp
constexpr int kPeers = kWarp / kOwnRows;         // lanes that share an own row
constexpr int kEach = kTileRows / kPeers;        // products of a lane with one tile
constexpr int kWeightStep = kTileRows + kPeers;  // floats between rows of weights
constexpr int kMaxHeadSize = 128;

using Quad = Vec<float, 4>;

// kQuads: quads of a row that a lane sums up. Head sizes up to 16 * kQuads.
template <int kQuads>
struct FmaTiles {
  static constexpr int kWidth = 4 * kPeers * kQuads;
  static constexpr int kStep = kWidth + 4;  // floats between rows

  static __device__ const Quad* quads(const float* row) { return reinterpret_cast<const Quad*>(row); }

  // Which quad of a row the lane's c-th is.
  static __device__ int quad(int c) { return thread_in_block() % kPeers * 2 + c % 2 + c / 2 * 2 * kPeers; }

  // Products of the own row with the lane's rows of the tile.
  static __device__ void dots(const float* own, const float* tile, float (&s)[kEach]) {
    const float* rows = tile + thread_in_block() % kPeers * kStep;
    for (int i = 0; i < kEach; ++i) s[i] = 0;
#pragma unroll 4
    for (int c = 0; c < kWidth / 4; ++c) {
      const Quad x = quads(own)[c];
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const Quad y = quads(rows + i * kPeers * kStep)[c];
        s[i] += x[0] * y[0] + x[1] * y[1] + x[2] * y[2] + x[3] * y[3];
      }
    }
  }

  // sum += weights[j] * row j, for the tile's first `rows` rows.
  static __device__ void add(Quad (&sum)[kQuads], const float* weights, const float* tile, int rows) {
    for (int j = 0; j < rows; ++j) {
      const float weight = weights[j];
#pragma unroll
      for (int c = 0; c < kQuads; ++c) {
        const Quad x = quads(tile + j * kStep)[quad(c)];
        for (int e = 0; e < 4; ++e) sum[c][e] += weight * x[e];
      }
    }
  }

  // The lane's quads times `factor` into the own row.
  static __device__ void put(float* own, const Quad (&sum)[kQuads], float factor) {
    for (int c = 0; c < kQuads; ++c) {
      Quad x = sum[c];
      for (int e = 0; e < 4; ++e) x[e] *= factor;
      st16(own + 4 * quad(c), x);
    }
  }
};

// The sum or maximum over the lanes that share an own row.
__device__ inline float peers_sum(float x) {
  for (int lanes = 1; lanes < kPeers; lanes *= 2) x += shfl_xor(x, lanes);
  return x;
}
__device__ inline float peers_max(float x) {
  for (int lanes = 1; lanes < kPeers; lanes *= 2) x = fmaxf(x, shfl_xor(x, lanes));
  return x;
}

// Softmax of one own row over keys that come tile by tile:
//   max' = max(max, s),   o' = o e^(max - max') + e^(s - max') v,   sum' alike;   in the end o / sum is the row
template <int kQuads>
struct SoftmaxRow {
  using Tiles = FmaTiles<kQuads>;
  float max = -INFINITY;
  float sum = 0;  // this lane's part
  Quad o[kQuads] = {};

  // Meets a tile of keys and values. Bit j of `seen`: key j may be seen. weights: the own row's place for them,
  // which the caller's barrier before the next tile guards as well.
  __device__ void meet(const float* q, const float* keys, const float* values, int rows, unsigned seen, float scale,
                       float* weights) {
    const int peer = thread_in_block() % kPeers;
    float s[kEach], largest = max;
    Tiles::dots(q, keys, s);
    for (int i = 0; i < kEach; ++i) {
      s[i] = seen >> (peer + i * kPeers) & 1 ? s[i] * scale : -INFINITY;
      largest = fmaxf(largest, s[i]);
    }
    largest = peers_max(largest);
    const float origin = largest == -INFINITY ? 0 : largest;  // nothing seen yet
    const float shrink = expf(max - origin);
    max = largest, sum *= shrink;
    for (int i = 0; i < kEach; ++i) {
      const float p = expf(s[i] - origin);
      weights[peer + i * kPeers] = p, sum += p;
    }
    __syncwarp();
    for (int c = 0; c < kQuads; ++c)
      for (int e = 0; e < 4; ++e) o[c][e] *= shrink;
    Tiles::add(o, weights, values, rows);
  }
};

// Calls f with the number of quads that hold a head of D columns.
template <class F>
void with_quads(const char* name, int D, const F& f) {
  if (D < 1 || D > kMaxHeadSize)
    throw std::invalid_argument(std::string(name) + ": head size is " + std::to_string(D) + ", but 1 to " +
                                std::to_string(kMaxHeadSize) + " are supported");
  if (D <= 32) return f(std::integral_constant<int, 2>{});
  if (D <= 64) return f(std::integral_constant<int, 4>{});
  return f(std::integral_constant<int, 8>{});
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
