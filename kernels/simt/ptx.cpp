#include "kernels/simt/ptx.h"

#include <cmath>
#include <cstring>
#include <string>

#include "kernels/simt/block.h"
#include "kernels/simt/checker.h"

namespace nanovlm::simt {
namespace {

void check_aligned(const char* operation, const void* address, int bytes, Where where) {
  const uintptr_t off = reinterpret_cast<uintptr_t>(address) % static_cast<uintptr_t>(bytes);
  if (off != 0)
    current_block->fail(where, "misaligned: ", operation, " of ", bytes, " bytes at an address that is ", off,
                        " past such a multiple");
}

// All of [address, address + bytes) must lie in one array.
void check_shared(const char* operation, const void* address, int bytes, Where where) {
  Block& block = *current_block;
  const SharedArrayRecord* array = block.shared().find(address);
  if (array && static_cast<const char*>(address) + bytes <= array->begin + array->bytes) return;
  if (array) block.fail(where, "out of bounds: ", operation, " past the end of shared array '", array->key->name, "'");
  block.fail(where, "out of bounds: ", operation, " outside every shared array of the block");
}

void note_access(const char* operation, const void* address, int bytes, bool write, Where where) {
  if (Checker* checker = current_block->checker()) checker->wrapper_access(operation, address, bytes, write, where);
}

}  // namespace

void load(void* to, const void* from, int bytes, Where where) {
  const char* operation = bytes == 16 ? "ld16" : "ld8";
  current_block->note(operation, where);
  check_aligned(operation, from, bytes, where);
  if (current_block->shared().holds(from)) check_shared(operation, from, bytes, where);
  note_access(operation, from, bytes, false, where);
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

void store(void* to, const void* from, int bytes, Where where) {
  const char* operation = bytes == 16 ? "st16" : "st8";
  current_block->note(operation, where);
  check_aligned(operation, to, bytes, where);
  if (current_block->shared().holds(to)) check_shared(operation, to, bytes, where);
  note_access(operation, to, bytes, true, where);
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

}  // namespace nanovlm::simt

namespace nanovlm::kernels::inline simt_words {

using namespace simt;

void cp_async16(void* shared, const void* global, int valid_bytes, Where where) {
  Block& block = *current_block;
  check_aligned("cp_async16", shared, 16, where);
  check_aligned("cp_async16", global, 16, where);
  check_shared("cp_async16", shared, 16, where);
  if (block.shared().holds(global)) block.fail(where, "cp_async16 reads shared memory, but its source must be global");
  if (valid_bytes < 0 || valid_bytes > 16)
    block.fail(where, "cp_async16: valid_bytes is ", valid_bytes, ", but must be 0 to 16");
  block.issue_copy({shared, global, 16, valid_bytes, 0}, where);
}

void cp_async_commit(Where where) { current_block->commit_copies(where); }
void cp_async_wait_newest(int groups_left, Where where) { current_block->wait_copies(groups_left, where); }

namespace {

struct LdmatrixSlot {
  const void* row;
  uint32_t r[4];
};

// PTX ISA, "Warp-level matrix load instruction: ldmatrix": thread 8i + j brings the address of row j of matrix i;
// thread l receives elements 2(l%4) and 2(l%4)+1 of row l/4 of each matrix, the first in the low half.
template <int kMatrices, bool kTranspose>
void complete_ldmatrix(void* const* slots, uint32_t, Block&) {
  for (int i = 0; i < kMatrices; ++i) {
    uint16_t matrix[8][8];
    for (int j = 0; j < 8; ++j) std::memcpy(matrix[j], static_cast<const LdmatrixSlot*>(slots[8 * i + j])->row, 16);
    for (int lane = 0; lane < kWarpLanes; ++lane) {
      const int row = lane / 4, column = lane % 4 * 2;
      const uint32_t low = kTranspose ? matrix[column][row] : matrix[row][column];
      const uint32_t high = kTranspose ? matrix[column + 1][row] : matrix[row][column + 1];
      static_cast<LdmatrixSlot*>(slots[lane])->r[i] = high << 16 | low;
    }
  }
}

void check_whole_warp(const char* operation, Where where) {
  if (current_block->lanes_in_warp() != kWarpLanes)
    current_block->fail(where, operation, " in a warp of ", current_block->lanes_in_warp(),
                        " lanes, but it needs all 32");
}

template <int kMatrices, bool kTranspose>
void ldmatrix(const char* operation, uint32_t* r, const void* row, Where where) {
  check_whole_warp(operation, where);
  if (current_block->lane() < 8 * kMatrices) {  // the other lanes' addresses are not used
    check_aligned(operation, row, 16, where);
    check_shared(operation, row, 16, where);
    note_access(operation, row, 16, false, where);
  }
  LdmatrixSlot slot{row, {}};
  current_block->meet_warp(operation, 0xffffffff, &slot, complete_ldmatrix<kMatrices, kTranspose>, where);
  std::memcpy(r, slot.r, sizeof(uint32_t) * kMatrices);
}

}  // namespace

void ldmatrix_x4(uint32_t (&r)[4], const void* row, Where where) { ldmatrix<4, false>("ldmatrix_x4", r, row, where); }
void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, Where where) {
  ldmatrix<4, true>("ldmatrix_x4_trans", r, row, where);
}
void ldmatrix_x2(uint32_t (&r)[2], const void* row, Where where) { ldmatrix<2, false>("ldmatrix_x2", r, row, where); }
void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row, Where where) {
  ldmatrix<2, true>("ldmatrix_x2_trans", r, row, where);
}

namespace {

struct MmaSlot {
  float* d;
  const uint32_t *a, *b;
};

// PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type". Element i of a lane's fragment, with
// g = lane / 4 and t = lane % 4:
//   a_i: row g + 8 (i/2 odd),  column 2t + i%2 + 8 (i >= 4)
//   b_i: row 2t + i%2 + 8 (i >= 2),  column g
//   d_i: row g + 8 (i >= 2),  column 2t + i%2
// The sum starts at d and adds the products by rising k, each rounded to fp32; a tensor core's own order and truncation
// are not modelled.
void complete_mma(void* const* slots, uint32_t, Block& block) {
  float a[16][16], b[16][8], d[16][8];
  const auto half = [](const uint32_t* r, int i) { return i % 2 ? high_bf16(r[i / 2]) : low_bf16(r[i / 2]); };
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const MmaSlot& slot = *static_cast<const MmaSlot*>(slots[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 8; ++i) a[g + 8 * (i / 2 % 2)][2 * t + i % 2 + 8 * (i / 4)] = half(slot.a, i);
    for (int i = 0; i < 4; ++i) b[2 * t + i % 2 + 8 * (i / 2)][g] = half(slot.b, i);
    for (int i = 0; i < 4; ++i) d[g + 8 * (i / 2)][2 * t + i % 2] = slot.d[i];
  }
  for (int m = 0; m < 16; ++m) {
    float sum[8];  // kept in registers
    for (int n = 0; n < 8; ++n) sum[n] = d[m][n];
    for (int k = 0; k < 16; ++k)
      for (int n = 0; n < 8; ++n) sum[n] += a[m][k] * b[k][n];
    for (int n = 0; n < 8; ++n) d[m][n] = sum[n];
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const MmaSlot& slot = *static_cast<const MmaSlot*>(slots[lane]);
    for (int i = 0; i < 4; ++i) slot.d[i] = d[lane / 4 + 8 * (i / 2)][lane % 4 * 2 + i % 2];
  }
  block.count_mma(2 * 16 * 8 * 16);
}

}  // namespace

void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Where where) {
  check_whole_warp("mma_m16n8k16", where);
  MmaSlot slot{d, a, b};
  current_block->meet_warp("mma_m16n8k16", 0xffffffff, &slot, complete_mma, where);
}

float ex2(float x) {
  const auto flush = [](float v) { return std::fpclassify(v) == FP_SUBNORMAL ? std::copysign(0.0f, v) : v; };
  return flush(std::exp2(flush(x)));
}

}  // namespace nanovlm::kernels::inline simt_words
