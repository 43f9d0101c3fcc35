// Vector registers of the instruction set a CPU kernel is compiled for. Internal linkage, as in kernels/cpu_math.h.
#pragma once
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
  using HalfWords [[gnu::vector_size(kLanes * sizeof(uint16_t)), gnu::aligned(2), gnu::may_alias]] = uint16_t;
  const Words words = __builtin_convertvector(*reinterpret_cast<const HalfWords*>(x), Words) << 16;
  return reinterpret_cast<const Lanes&>(words);
}

inline void store(float* x, const Lanes& y) { *reinterpret_cast<Lanes*>(x) = y; }

}  // namespace
}  // namespace nanovlm::kernels
