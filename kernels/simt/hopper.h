// Host twins of the wrappers in kernels/cuda/hopper.cuh: same names, same meaning, written from the PTX ISA 9.0 manual.
//
// The bulk copy engine and wgmma work on their own: what they read and write is theirs until it has been waited for.
// With early copies they have done it when they are issued, with late ones not before the wait. Reading what is still
// being copied, copying over what is still being multiplied, and reading sums before their wait are errors or wrong
// numbers here. The instrumented build orders them in every run (clocks.h): a wait for a phase comes after the arrivals
// and copies of that phase, and nothing else does.
#pragma once
#include "kernels/simt/ptx.h"

namespace nanovlm::kernels::inline simt_words {

// A row-major matrix of bf16 in global memory, and boxes of it: box_rows x kBoxColumns. Rows start at multiples of 16
// bytes: throws otherwise. PTX ISA, "Tensors". A kernel takes it as `const __grid_constant__ TensorMap`.
struct TensorMap {
  const bf16* data;
  int64_t rows, columns;
  int box_rows;
};
TensorMap tensor_map(const char* name, const bf16* data, int64_t rows, int64_t columns, int box_rows);

// Whether the GPU has these instructions.
inline bool hopper() { return true; }

// Where shared memory lies in its own address space.
uint32_t shared_address(const void* pointer);

// A barrier of phases in shared memory: PTX ISA, "mbarrier". Its phase completes once `threads` have arrived and the
// bytes that they expect have been copied. One thread makes it, fences, and meets the others before they use it.
void arrivals_init(uint64_t* barrier, int threads, Where where = Where::here());
void arrive_expecting(uint64_t* barrier, int bytes, Where where = Where::here());
// Waits for the end of the phase of this parity: 0 for the first, 1 for the second, 0 for the third ...
void wait_phase(uint64_t* barrier, int parity, Where where = Where::here());
// Orders accesses of shared memory by this thread, and by those it has met, before what the copy engine and wgmma do
// there once they are issued after it: here, or by threads that meet this one. Without it neither a barrier nor an
// mbarrier does. Not needed after waiting for asynchronous work. PTX ISA, "Async Proxy".
void fence_async_proxy(Where where = Where::here());

// Starts copying the box at row, column into rows of 128 bytes, zeros for what lies outside the matrix; its bytes count
// at the barrier. In each 1,024 bytes, where `shared` must start, the 16-byte piece p of row r lies at piece p ^ r.
// PTX ISA, "cp.async.bulk.tensor" and "Swizzling Modes".
void copy_box(void* shared, const TensorMap& from, int row, int column, uint64_t* barrier, Where where = Where::here());

// d [64, 128] += op(a) [64, 16] op(b) [16, 128] by four warps together, of which the first one's number is a multiple
// of 4. a and b are matrix descriptors (kernels/hopper.cuh). Warp w of the four holds rows 16 w ... 16 w + 15: with
// g = lane / 4, t = lane % 4, d[4 j + 2 h + e] is that of row 16 w + g + 8 h and column 8 j + 2 t + e.
// PTX ISA, "Register Fragments and Shared Memory Matrix Layouts", wgmma .m64nNk16.
void wgmma(int n, float* d, bool transpose_a, uint64_t a, bool transpose_b, uint64_t b, Where where);
template <bool kTransposeA, bool kTransposeB>
void wgmma_m64n128k16(float (&d)[64], uint64_t a, uint64_t b, Where where = Where::here()) {
  wgmma(128, d, kTransposeA, a, kTransposeB, b, where);
}
// d [64, N] = (d +) a [64, 16] op(b) [16, N] for N = 64 and 208, with a in registers: warp w brings rows 16 w ...
// 16 w + 15 of it as mma_m16n8k16 would have them (ptx.h), and d[j][e] is d[4 j + e] above. What a lane brings is read
// some time before the wait: the compiler keeps it in place. PTX ISA, "Register Fragments and Shared Memory Matrix
// Layouts".
void wgmma(int n, bool add, float* d, const uint32_t* a, bool transpose_b, uint64_t b, Where where);
template <bool kTransposeB, int N8>
void wgmma_m64k16(bool add, float (&d)[N8][4], const uint32_t (&a)[4], uint64_t b, Where where = Where::here()) {
  static_assert(N8 == 8 || N8 == 26, "kernels/cuda/hopper.cuh has these");
  wgmma(8 * N8, add, d[0], a, kTransposeB, b, where);
}
// Before the first wgmma, and wherever else registers of d have been written.
void wgmma_fence(Where where = Where::here());
void wgmma_commit(Where where = Where::here());
void wgmma_wait_newest(int groups_left, Where where);
// Waits until at most N of this warp's newest groups are still under way.
template <int N>
void wgmma_wait(Where where = Where::here()) {
  wgmma_wait_newest(N, where);
}

}  // namespace nanovlm::kernels::inline simt_words
