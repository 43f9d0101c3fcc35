// CUDA's words on the host: what a kernel file finds in place of the CUDA runtime. Included by kernels/device.cuh only.
//
// Each word that meets, checks or counts records its source line by a default argument.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/launch.h"
#include "kernels/simt/shared_memory.h"
#include "kernels/simt/where.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

// An array in shared memory: GPU_SHARED(float, tile, [32][33]);
#define GPU_SHARED(type, name, extents)                                                                 \
  using name##_array = type extents;                                                                    \
  static constexpr ::nanovlm::simt::SharedKey name##_key{#name, ::nanovlm::simt::Where::here(), false}; \
  const ::nanovlm::simt::SharedArray<name##_array> name = ::nanovlm::simt::shared_array<name##_array>(name##_key)
// The launch's dynamic shared memory, as an array of `type`; 16-byte aligned.
#define GPU_SHARED_DYNAMIC(type, name)                                                                 \
  static constexpr ::nanovlm::simt::SharedKey name##_key{#name, ::nanovlm::simt::Where::here(), true}; \
  const ::nanovlm::simt::SharedArray<type[]> name = ::nanovlm::simt::dynamic_shared_array<type>(name##_key)

namespace nanovlm::kernels::inline simt_words {

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint3 {
  unsigned x, y, z;
};

}  // namespace nanovlm::kernels::inline simt_words

namespace nanovlm::simt {

// The running thread's place; set by the executor at each switch.
inline constinit thread_local kernels::uint3 threadIdx{}, blockIdx{};
inline constinit thread_local kernels::dim3 blockDim{}, gridDim{};

// 32 or 64 bits from another lane of the warp. `distance` is a lane, a step or a mask, as the kind says.
enum class Shuffle { index, up, down, exclusive_or };
uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t bits, int distance, int width, Where where);
uint32_t ballot(const char* operation, uint32_t mask, bool predicate, Where where);
void sync_block(Where where);
void sync_warp(uint32_t mask, Where where);
void fence(Where where);

enum class Atomic { add, min, max, exchange };
template <class T>
T atomic(Atomic kind, T* address, T value, Where where);  // int, unsigned, unsigned long long, float
template <class T>
T atomic_compare_exchange(T* address, T expected, T value, Where where);  // int, unsigned, unsigned long long

}  // namespace nanovlm::simt

namespace nanovlm::kernels::inline simt_words {

using simt::blockDim;
using simt::blockIdx;
using simt::gridDim;
using simt::threadIdx;
using simt::Where;

inline void __syncthreads(Where where = Where::here()) { simt::sync_block(where); }
inline void __syncwarp(uint32_t mask = 0xffffffff, Where where = Where::here()) { simt::sync_warp(mask, where); }
inline void __threadfence(Where where = Where::here()) { simt::fence(where); }
inline void __threadfence_block(Where where = Where::here()) { simt::fence(where); }

template <class T>
T shuffled(simt::Shuffle kind, uint32_t mask, T value, int distance, int width, Where where) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4, "a shuffle moves 32 or 64 bits");
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  const uint64_t bits = simt::shuffle(kind, mask, std::bit_cast<Bits>(value), distance, width, where);
  return std::bit_cast<T>(static_cast<Bits>(bits));
}
template <class T>
T __shfl_sync(uint32_t mask, T value, int lane, int width = 32, Where where = Where::here()) {
  return shuffled(simt::Shuffle::index, mask, value, lane, width, where);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32, Where where = Where::here()) {
  return shuffled(simt::Shuffle::up, mask, value, static_cast<int>(delta), width, where);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32, Where where = Where::here()) {
  return shuffled(simt::Shuffle::down, mask, value, static_cast<int>(delta), width, where);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lanes, int width = 32, Where where = Where::here()) {
  return shuffled(simt::Shuffle::exclusive_or, mask, value, lanes, width, where);
}
inline unsigned __ballot_sync(uint32_t mask, int predicate, Where where = Where::here()) {
  return simt::ballot("__ballot_sync", mask, predicate, where);
}
inline int __any_sync(uint32_t mask, int predicate, Where where = Where::here()) {
  return simt::ballot("__any_sync", mask, predicate, where) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, Where where = Where::here()) {
  return simt::ballot("__all_sync", mask, !predicate, where) == 0;
}

// __syncthreads and __shfl_xor_sync of the whole warp for helpers that pass their caller's line on.
inline void block_barrier(Where where = Where::here()) { simt::sync_block(where); }
template <class T>
T shfl_xor(T value, int lanes, Where where = Where::here()) {
  return shuffled(simt::Shuffle::exclusive_or, 0xffffffff, value, lanes, 32, where);
}

template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value, Where where = Where::here()) {
  return simt::atomic(simt::Atomic::add, address, value, where);
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value, Where where = Where::here()) {
  return simt::atomic(simt::Atomic::min, address, value, where);
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value, Where where = Where::here()) {
  return simt::atomic(simt::Atomic::max, address, value, where);
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value, Where where = Where::here()) {
  return simt::atomic(simt::Atomic::exchange, address, value, where);
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value, Where where = Where::here()) {
  return simt::atomic_compare_exchange(address, expected, value, where);
}

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x ? std::countr_zero(static_cast<unsigned>(x)) + 1 : 0; }
template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

}  // namespace nanovlm::kernels::inline simt_words
