// The words every kernel contract is written in: dtypes, a 16-bit float, a stream, one tag a backend.
//
// A contract (kernels/<op>/<op>.h) holds one plain argument struct a direction and one declaration
//     template <class Backend> void rms_norm(Backend, const RmsNorm&, Stream);
// Each backend's file specialises it for its own tag, so a missing implementation is a link error that names both.
#pragma once
#include <bit>
#include <cstdint>
#include <stdexcept>

// nvcc wants the words that let a function run on both sides; every other compiler gets nothing.
#if defined(__CUDACC__)
#define NANOVLM_HOST_DEVICE __host__ __device__
#else
#define NANOVLM_HOST_DEVICE
#endif

namespace nanovlm {

enum class DType : uint8_t { f32, bf16, i32, u8 };

constexpr int64_t size_of(DType dtype) {
  constexpr int64_t sizes[] = {4, 2, 4, 1};
  return sizes[static_cast<int>(dtype)];
}

constexpr const char* name_of(DType dtype) {
  constexpr const char* names[] = {"f32", "bf16", "i32", "u8"};
  return names[static_cast<int>(dtype)];
}

// bfloat16: the upper half of an fp32. Converting from float rounds to nearest, ties to even; NaN stays NaN.
struct bf16 {
  uint16_t bits;

  bf16() = default;
  NANOVLM_HOST_DEVICE explicit bf16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
    bits = static_cast<uint16_t>(nan ? (u >> 16) | 0x40u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  NANOVLM_HOST_DEVICE explicit operator float() const {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
};

// Work is ordered by a stream. On hosts it is null: a kernel has finished when its function returns.
struct Stream {
  void* handle = nullptr;
};

// The backends. The CPU source is compiled once for each instruction set; engine/device.cpp picks one at start.
struct CpuBaseline {};
struct CpuAvx2 {};
struct CpuAvx512 {};
struct Simt {};  // the CUDA source, run on the host by kernels/simt/
struct Cuda {};

// The backend a source file is being compiled for; set by the build.
#if defined(NANOVLM_BACKEND)
using ThisBackend = NANOVLM_BACKEND;
#endif

template <class T>
struct Type {
  using type = T;
};

// Calls f with Type<float> or Type<bf16>.
template <class F>
void with_float(DType dtype, F&& f) {
  if (dtype == DType::f32) return f(Type<float>{});
  if (dtype == DType::bf16) return f(Type<bf16>{});
  // No std::string here: its weak functions, compiled for AVX-512, could be linked into the baseline path.
  throw std::invalid_argument(dtype == DType::i32 ? "kernel: dtype is i32, but only f32 and bf16 are supported"
                                                  : "kernel: dtype is u8, but only f32 and bf16 are supported");
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace nanovlm
