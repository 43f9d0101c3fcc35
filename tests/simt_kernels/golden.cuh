// One small kernel a wrapper of the vocabulary: 32 lanes, words in, words out. tools/record_golden.cu runs them on a
// GPU and writes down what comes out; tests/simt_ptx_test.cpp requires the same of the host twins.
#pragma once
#include <bit>
#include <string>
#include <vector>

#include "kernels/device.cuh"

namespace nanovlm::kernels {

__device__ inline uint32_t bits_of(float x) { return std::bit_cast<uint32_t>(x); }
__device__ inline float float_of(uint32_t x) { return std::bit_cast<float>(x); }

__global__ void golden_vectors(const uint32_t* in, uint32_t* out) {
  const int lane = static_cast<int>(threadIdx.x);
  st16(out + 8 * lane, ld16(in + 8 * lane));
  st8(out + 8 * lane + 4, ld8(in + 8 * lane + 4));
  st8(out + 8 * lane + 6, ld8(in + 8 * lane + 6));
}

// Lane l copies l % 17 bytes; the rest must become zeros.
__global__ void golden_cp_async(const uint32_t* in, uint32_t* out) {
  GPU_SHARED(uint32_t, tile, [32 * 4]);
  const int lane = static_cast<int>(threadIdx.x);
  cp_async16(&tile[4 * lane], in + 4 * lane, lane % 17);
  cp_async_commit();
  cp_async_wait<0>();
  __syncwarp();
  for (int i = 0; i < 4; ++i) out[4 * lane + i] = tile[4 * lane + i];
}

// The 128 words are four 8x8 matrices of 16 bits. Lane l brings row l % 8 of matrix l / 8 (of l / 8 % 2 for _x2).
template <int kMatrices, bool kTranspose>
__global__ void golden_ldmatrix(const uint32_t* in, uint32_t* out) {
  GPU_SHARED(uint32_t, tile, [32 * 4]);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 4; ++i) tile[4 * lane + i] = in[4 * lane + i];
  __syncwarp();
  uint32_t r[kMatrices];
  const uint32_t* row = &tile[4 * (lane % (8 * kMatrices))];
  if constexpr (kMatrices == 4 && !kTranspose) ldmatrix_x4(r, row);
  if constexpr (kMatrices == 4 && kTranspose) ldmatrix_x4_trans(r, row);
  if constexpr (kMatrices == 2 && !kTranspose) ldmatrix_x2(r, row);
  if constexpr (kMatrices == 2 && kTranspose) ldmatrix_x2_trans(r, row);
  for (int i = 0; i < kMatrices; ++i) out[kMatrices * lane + i] = r[i];
}

// A lane's words: a[0..3], b[0..1], d[0..3]. Its results: d.
__global__ void golden_mma(const uint32_t* in, uint32_t* out) {
  const uint32_t* mine = in + 10 * threadIdx.x;
  const uint32_t a[4] = {mine[0], mine[1], mine[2], mine[3]}, b[2] = {mine[4], mine[5]};
  float d[4];
  for (int i = 0; i < 4; ++i) d[i] = float_of(mine[6 + i]);
  mma_m16n8k16(d, a, b);
  for (int i = 0; i < 4; ++i) out[4 * threadIdx.x + i] = bits_of(d[i]);
}

__global__ void golden_ex2(const uint32_t* in, uint32_t* out) {
  out[threadIdx.x] = bits_of(ex2(float_of(in[threadIdx.x])));
}

__global__ void golden_bf16(const uint32_t* in, uint32_t* out) {
  const float x = float_of(in[2 * threadIdx.x]), y = float_of(in[2 * threadIdx.x + 1]);
  const uint32_t pair = pack_bf16(x, y);
  out[4 * threadIdx.x] = to_bf16(x).bits;
  out[4 * threadIdx.x + 1] = pair;
  out[4 * threadIdx.x + 2] = bits_of(low_bf16(pair));
  out[4 * threadIdx.x + 3] = bits_of(high_bf16(pair));
}

template <int kWidth>
__global__ void golden_shuffle(const uint32_t* in, uint32_t* out) {
  const uint32_t value = in[2 * threadIdx.x];
  const int by = static_cast<int>(in[2 * threadIdx.x + 1] % 32);
  uint32_t* mine = out + 6 * threadIdx.x;
  mine[0] = __shfl_sync(kFullMask, value, by, kWidth);
  mine[1] = __shfl_up_sync(kFullMask, value, static_cast<unsigned>(by), kWidth);
  mine[2] = __shfl_down_sync(kFullMask, value, static_cast<unsigned>(by), kWidth);
  mine[3] = __shfl_xor_sync(kFullMask, value, by, kWidth);
  mine[4] = __ballot_sync(kFullMask, value & 1);
  mine[5] = static_cast<uint32_t>(__any_sync(kFullMask, value == 0) * 2 + __all_sync(kFullMask, value != 0));
}

__global__ void golden_reductions(const uint32_t* in, uint32_t* out) {
  const float x = float_of(in[threadIdx.x]);
  uint32_t* mine = out + 4 * threadIdx.x;
  mine[0] = bits_of(warp_sum(x));
  mine[1] = bits_of(warp_max(x));
  mine[2] = bits_of(block_sum(x));
  mine[3] = bits_of(block_max(x));
}

struct GoldenCase {
  enum class Input { any_bits, bf16_pairs, floats, special_floats, zero_or_any };

  const char* name;
  int words_in, words_out;  // a lane
  Input input;
  bool exact;  // else within a tolerance: the hardware rounds in its own way
  void (*kernel)(const uint32_t*, uint32_t*);
};

inline std::vector<GoldenCase> golden_cases() {
  using In = GoldenCase::Input;
  return {{"ld16_st16_ld8_st8", 8, 8, In::any_bits, true, golden_vectors},
          {"cp_async16", 4, 4, In::any_bits, true, golden_cp_async},
          {"ldmatrix_x4", 4, 4, In::any_bits, true, golden_ldmatrix<4, false>},
          {"ldmatrix_x4_trans", 4, 4, In::any_bits, true, golden_ldmatrix<4, true>},
          {"ldmatrix_x2", 4, 2, In::any_bits, true, golden_ldmatrix<2, false>},
          {"ldmatrix_x2_trans", 4, 2, In::any_bits, true, golden_ldmatrix<2, true>},
          {"mma_m16n8k16", 10, 4, In::bf16_pairs, false, golden_mma},
          {"ex2", 1, 1, In::special_floats, false, golden_ex2},
          {"bf16", 2, 4, In::special_floats, true, golden_bf16},
          {"shuffle_32", 2, 6, In::any_bits, true, golden_shuffle<32>},
          {"shuffle_8", 2, 6, In::zero_or_any, true, golden_shuffle<8>},
          {"reductions", 1, 4, In::floats, true, golden_reductions}};
}

// The words that 32 lanes of a case read; the same on every machine.
inline std::vector<uint32_t> golden_input(const GoldenCase& c) {
  constexpr uint32_t kSpecial[] = {0x00000000, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000,
                                   0x7fc00000, 0x00000001, 0x807fffff, 0x7f7fffff, 0x3f808000, 0x3f818000,
                                   0x3f808001, 0x42fe0000, 0x43000000, 0xc2fc0000, 0xc3150000, 0x7f800001};
  std::vector<uint32_t> words;
  uint64_t state = 88172645463325252u;
  for (int i = 0; i < 32 * c.words_in; ++i) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    const uint32_t bits = static_cast<uint32_t>(state >> 16);
    const float x = static_cast<float>(bits >> 8) / 2097152.0f - 4.0f;  // -4 ... 4
    const uint32_t half = std::bit_cast<uint32_t>(x) >> 16;
    switch (c.input) {
      case GoldenCase::Input::any_bits:
        words.push_back(bits);
        break;
      case GoldenCase::Input::zero_or_any:
        words.push_back(i % 6 == 0 ? 0 : bits);
        break;
      case GoldenCase::Input::bf16_pairs:  // and the fp32 accumulators of a lane
        words.push_back(i % 10 < 6 ? half << 16 | (half ^ 0x8005u) : std::bit_cast<uint32_t>(x));
        break;
      case GoldenCase::Input::floats:
        words.push_back(std::bit_cast<uint32_t>(x));
        break;
      case GoldenCase::Input::special_floats:
        words.push_back(i < 18 ? kSpecial[i] : std::bit_cast<uint32_t>(x * 20));
        break;
    }
  }
  return words;
}

}  // namespace nanovlm::kernels
