// What attention's kernels share: the block's place in the problem, which keys a query sees, and rows on their way
// between global and shared memory.
//
// The queries of one segment that share a key/value head are numbered row by row, their heads within: item
// i = row * (H / G) + head. So a tile of items reads its keys once for all of these heads.
#pragma once
#include <cmath>
#include <stdexcept>
#include <string>

#include "kernels/attention/attention.h"

#include "kernels/device.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

// The segment and key/value head that a block works on, and which of their tiles.
struct Place {
  int begin, end;  // rows of the segment
  int g, tile;
  int n;  // query heads of g

  __device__ int rows() const { return end - begin; }
  __device__ int items() const { return (end - begin) * n; }
};

// Blocks are numbered (segment, g, tile), the tile fastest.
__device__ inline Place place_of(const AttentionShape& a, int tiles) {
  const int pair = static_cast<int>(blockIdx.x) / tiles, segment = pair / a.G;
  return {a.bounds[segment], a.bounds[segment + 1], pair % a.G, static_cast<int>(blockIdx.x) % tiles, a.H / a.G};
}

// An item's row and head, and where they stand.
struct Query {
  int row, head;  // row of all, head of all H

  __device__ int64_t in(int64_t stride, int D) const { return row * stride + head * D; }
};
__device__ inline Query query_of(const Place& at, int item) {
  return {at.begin + item / at.n, at.g * at.n + item % at.n};
}

// The bits of a tile's rows `first` ... `first + 31` that lie below `limit`.
__device__ inline unsigned bits_below(int limit, int first) {
  const int count = limit - first;
  return count >= 32 ? kFullMask : count <= 0 ? 0u : (1u << count) - 1;
}

// What key_mask leaves of a segment. Made by whole warps.
struct Visible {
  int first;  // the first visible row, or the segment's end

  // Rows that the mask leaves without a key attend evenly to the keys that they would see without it.
  __device__ bool keyless(const AttentionShape& a, int row, int end) const {
    return a.causal ? row < first : first == end;
  }
};
__device__ inline Visible visible_keys(const AttentionShape& a, int begin, int end) {
  if (!a.key_mask) return {begin};
  const int lane = thread_in_block() % kWarp;
  for (int row = begin; row < end; row += kWarp) {
    const unsigned bits = __ballot_sync(kFullMask, row + lane < end && a.key_mask[row + lane]);
    if (bits) return {row + __ffs(static_cast<int>(bits)) - 1};
  }
  return {end};
}
// The visible ones of rows `row` ... `row + 31`, as bits.
__device__ inline unsigned visible_bits(const AttentionShape& a, int row, int end) {
  const int mine = row + thread_in_block() % kWarp;
  return a.key_mask ? __ballot_sync(kFullMask, mine < end && a.key_mask[mine]) : bits_below(end, row);
}

inline std::string describe(const AttentionShape& a) {
  return std::to_string(a.S) + " segments of up to " + std::to_string(a.longest) + " rows, " + std::to_string(a.H) +
         " query and " + std::to_string(a.G) + " key/value heads of size " + std::to_string(a.D) + ", " +
         name_of(a.dtype);
}

// Whether the kernel `name` is the one to take: the one asked for, or any that can do the shape where none is. `does`
// says what it can do.
inline bool takes(const char* operation, const char* asked, const char* name, const AttentionShape& shape, bool can,
                  const char* does) {
  if (!asked) return can;
  if (std::string(asked) != name) return false;
  if (!can)
    throw std::invalid_argument(std::string(operation) + ": kernel \"" + name + "\" does " + does + "; asked for " +
                                describe(shape));
  return true;
}

// Angles of a row: cos and sin of its position, or nulls.
struct Angles {
  const float *cos, *sin;
};
__device__ inline Angles angles_of(const AttentionShape& a, int row, int begin) {
  if (!a.cos) return {nullptr, nullptr};
  const int64_t position = a.positions ? a.positions[row] : row - begin;
  return {a.cos + position * (a.D / 2), a.sin + position * (a.D / 2)};
}

// Entries d and d + half of one head of a row as fp32, half = (D + 1) / 2; zero where a head has no such entry. Loaded,
// turned and put apart from one another, so that the loads of several rows can be under way together.
struct RowPair {
  float low = 0, high = 0;

  // Zeros if the row is not `there`; `from` is a row that can be read in any case.
  template <class T>
  __device__ void load(const T* from, bool there, int d, int D) {
    const int half = (D + 1) / 2, at = min(d, half - 1);
    const float first = static_cast<float>(from[at]), second = static_cast<float>(from[min(at + half, D - 1)]);
    low = there && d < half ? first : 0;
    high = there && d < half && d + half < D ? second : 0;
  }
  // Rotates where there are angles, which takes an even D, and rounds to T.
  template <class T>
  __device__ void turn(Angles at, int d, int D) {
    if (!at.cos || d >= D / 2) return;
    const float cos = at.cos[d], sin = at.sin[d], was = low;
    low = static_cast<float>(round_to<T>(was * cos - high * sin));
    high = static_cast<float>(round_to<T>(high * cos + was * sin));
  }
  __device__ void put(float* to, int d, int D) const {
    const int half = (D + 1) / 2;
    if (d < half) to[d] = low;
    if (d < half && d + half < D) to[d + half] = high;
  }
};

// Zeros from D on. Made by a warp.
__device__ inline void put_zeros(float* to, int D, int width) {
#pragma unroll 1
  for (int d = D + thread_in_block() % kWarp; d < width; d += kWarp) to[d] = 0;
}

// One head of a row, to[width], as fp32: rotated where there are angles, rounded to T, and zeros from D on. A null
// `from` gives zeros. Made by a warp.
template <class T>
__device__ void load_row(float* to, int width, const T* from, int D, Angles at = {nullptr, nullptr}) {
  for (int d = thread_in_block() % kWarp; from && d < (D + 1) / 2; d += kWarp) {
    RowPair pair;
    pair.load(from, true, d, D);
    pair.turn<T>(at, d, D);
    pair.put(to, d, D);
  }
  put_zeros(to, from ? D : 0, width);
}

// Stores a row, rotated back where there are angles: the gradient of a rotated row. Made by a warp. Its loops take a
// few turns at most; unrolled, they would cost registers.
template <class T>
__device__ void store_row(T* to, const float* from, int D, Angles at = {nullptr, nullptr}) {
  const int lane = thread_in_block() % kWarp, half = D / 2;
  if (!at.cos) {
#pragma unroll 1
    for (int d = lane; d < D; d += kWarp) to[d] = round_to<T>(from[d]);
    return;
  }
#pragma unroll 1
  for (int d = lane; d < half; d += kWarp) {
    const float low = from[d], high = from[d + half];
    to[d] = round_to<T>(low * at.cos[d] + high * at.sin[d]);
    to[d + half] = round_to<T>(high * at.cos[d] - low * at.sin[d]);
  }
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
