// Host twins of the PTX wrappers in kernels/cuda/ptx.cuh: same names, same meaning, written from the PTX ISA 9.0
// manual. Each checks what the hardware demands (alignment, address space, all lanes together) and names the caller's
// line.
#pragma once
#include <bit>
#include <cstdint>

#include "kernels/simt/where.h"
#include "kernels/types.h"

namespace nanovlm::simt {

// Loads or stores of 8 or 16 bytes: PTX ISA, "ld" and "st", with .v2.b32 and .v4.b32.
void load(void* to, const void* from, int bytes, Where where);
void store(void* to, const void* from, int bytes, Where where);

}  // namespace nanovlm::simt

namespace nanovlm::kernels::inline simt_words {

using simt::Where;

// N values that one instruction moves.
template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
  T v[N];
  T& operator[](int i) { return v[i]; }
  const T& operator[](int i) const { return v[i]; }
};

template <class T>
Vec<T, 16 / sizeof(T)> ld16(const T* from, Where where = Where::here()) {
  Vec<T, 16 / sizeof(T)> value;
  simt::load(&value, from, 16, where);
  return value;
}
template <class T>
void st16(T* to, const Vec<T, 16 / sizeof(T)>& value, Where where = Where::here()) {
  simt::store(to, &value, 16, where);
}
template <class T>
Vec<T, 8 / sizeof(T)> ld8(const T* from, Where where = Where::here()) {
  Vec<T, 8 / sizeof(T)> value;
  simt::load(&value, from, 8, where);
  return value;
}
template <class T>
void st8(T* to, const Vec<T, 8 / sizeof(T)>& value, Where where = Where::here()) {
  simt::store(to, &value, 8, where);
}

// Starts copying 16 bytes from global to shared memory; the bytes from valid_bytes on become zeros and are not read.
// PTX ISA, "cp.async": cp.async.cg.shared.global.
void cp_async16(void* shared, const void* global, int valid_bytes = 16, Where where = Where::here());
void cp_async_commit(Where where = Where::here());
void cp_async_wait_newest(int groups_left, Where where);
// Waits until at most N of this thread's newest groups are still under way. Other threads' copies need a barrier too.
template <int N>
void cp_async_wait(Where where = Where::here()) {
  cp_async_wait_newest(N, where);
}

// Loads 8x8 matrices of 16-bit values from shared memory: lanes 8i ... 8i+7 bring the rows of matrix i, 16 bytes each.
// Lane l receives of each matrix row l/4, columns 2(l%4) and 2(l%4)+1; with _trans, of its transpose.
// PTX ISA, "Warp-level matrix load instruction: ldmatrix": .m8n8.x{2,4}{.trans}.shared.b16.
void ldmatrix_x4(uint32_t (&r)[4], const void* row, Where where = Where::here());
void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, Where where = Where::here());
void ldmatrix_x2(uint32_t (&r)[2], const void* row, Where where = Where::here());
void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row, Where where = Where::here());

// d [16, 8] += a [16, 16] b [16, 8], bf16 products added in fp32. With g = lane / 4, t = lane % 4 a lane holds
//   a[0] (g, 2t..2t+1)    a[1] (g+8, 2t..)    a[2] (g, 2t+8..)    a[3] (g+8, 2t+8..)       (row, columns)
//   b[0] (2t..2t+1, g)    b[1] (2t+8..2t+9, g)                                             (rows, column)
//   d[0], d[1] (g, 2t..2t+1)    d[2], d[3] (g+8, 2t..2t+1)
// PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type".
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Where where = Where::here());

// 2^x to about 2 ulp, subnormals as zero: PTX ISA, "ex2": ex2.approx.ftz.f32.
float ex2(float x);

// Rounds to nearest even: PTX ISA, "cvt": cvt.rn.bf16.f32 and cvt.rn.bf16x2.f32. A NaN is the canonical one.
inline bf16 to_bf16(float x) {
  bf16 y(x);
  if (x != x) y.bits = 0x7fff;
  return y;
}
inline uint32_t pack_bf16(float low, float high) { return uint32_t{to_bf16(high).bits} << 16 | to_bf16(low).bits; }
inline float low_bf16(uint32_t pair) { return std::bit_cast<float>(pair << 16); }
inline float high_bf16(uint32_t pair) { return std::bit_cast<float>(pair & 0xffff0000u); }

}  // namespace nanovlm::kernels::inline simt_words
