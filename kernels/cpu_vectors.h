// Vector registers of the instruction set a CPU kernel is compiled for. Internal linkage, as in kernels/cpu_math.h.
#pragma once
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "kernels/types.h"

namespace nanovlm::kernels {
namespace {

// The floats of one register.
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

// May be read from and written to any floats.
using Lanes [[gnu::vector_size(kLanes * sizeof(float)), gnu::aligned(4), gnu::may_alias]] = float;

inline Lanes load(const float* x) { return *reinterpret_cast<const Lanes*>(x); }

inline Lanes load(const bf16* x) {
  using Words [[gnu::vector_size(kLanes * sizeof(uint32_t))]] = uint32_t;
#if defined(__AVX512F__)
  // One instruction; gcc 12 makes four of the portable form, and warns of the intrinsic without a mask.
  const __m512i wide = _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(x)));
  const Words words = std::bit_cast<Words>(wide) << 16;
#else
  using HalfWords [[gnu::vector_size(kLanes * sizeof(uint16_t)), gnu::aligned(2), gnu::may_alias]] = uint16_t;
  const Words words = __builtin_convertvector(*reinterpret_cast<const HalfWords*>(x), Words) << 16;
#endif
  return std::bit_cast<Lanes>(words);
}

inline void store(float* x, const Lanes& y) { *reinterpret_cast<Lanes*>(x) = y; }

// The sum of the lanes: halves added to halves.
inline float total_of(const Lanes& x) {
  using Four [[gnu::vector_size(16)]] = float;
#if defined(__AVX__)
  using Eight [[gnu::vector_size(32)]] = float;
#if defined(__AVX512F__)
  const Eight eight = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) +
                      __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
#else
  const Eight eight = x;
#endif
  const Four four =
      __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
#else
  const Four four = x;
#endif
  return (four[0] + four[2]) + (four[1] + four[3]);
}

}  // namespace
}  // namespace nanovlm::kernels
