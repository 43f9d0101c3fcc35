// The PTX wrappers: the one place with inline assembly. kernels/simt/ptx.h documents each and is its twin on the host.
#pragma once
#include <bit>
#include <cstdint>

#include "kernels/cuda/words.cuh"
#include "kernels/types.h"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
  T v[N];
  __device__ T& operator[](int i) { return v[i]; }
  __device__ const T& operator[](int i) const { return v[i]; }
};

template <class T>
__device__ Vec<T, 16 / sizeof(T)> ld16(const T* from, Where = {}) {
  return std::bit_cast<Vec<T, 16 / sizeof(T)>>(*reinterpret_cast<const uint4*>(from));
}
template <class T>
__device__ void st16(T* to, const Vec<T, 16 / sizeof(T)>& value, Where = {}) {
  *reinterpret_cast<uint4*>(to) = std::bit_cast<uint4>(value);
}
template <class T>
__device__ Vec<T, 8 / sizeof(T)> ld8(const T* from, Where = {}) {
  return std::bit_cast<Vec<T, 8 / sizeof(T)>>(*reinterpret_cast<const uint2*>(from));
}
template <class T>
__device__ void st8(T* to, const Vec<T, 8 / sizeof(T)>& value, Where = {}) {
  *reinterpret_cast<uint2*>(to) = std::bit_cast<uint2>(value);
}

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ inline void cp_async16(void* shared, const void* global, int valid_bytes = 16, Where = {}) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid_bytes)
               : "memory");
}
__device__ inline void cp_async_commit(Where = {}) { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
__device__ void cp_async_wait(Where = {}) {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

__device__ inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, Where = {}) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, Where = {}) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ inline void ldmatrix_x2(uint32_t (&r)[2], const void* row, Where = {}) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}
__device__ inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row, Where = {}) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

__device__ inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Where = {}) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline float ex2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline bf16 to_bf16(float x) {
  bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
__device__ inline uint32_t pack_bf16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
__device__ inline float low_bf16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_bf16(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
