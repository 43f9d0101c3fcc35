// Pixels of patches as an operand of gemm/tile.cuh, rounded to bf16 in shared memory: no copy of them in rows is made.
//
// Patches are rows of a matrix [patches, 3 p p], wherever their pixels lie; a product runs over the pixels, or over the
// patches. cp.async brings 4 pixels at a time, whose neighbours a warp brings with them: for p = 16, whole sectors. A
// slot of 8 pixels, 32 bytes of fp32, then becomes a chunk of 16 bytes where it lies: in its first half in even rows,
// in its second in odd ones. With slots swizzled, slot ^ row / 2 % 4, the 8 rows that ldmatrix reads lie in different
// banks; and so do what the lanes of the rounding read and write.
#pragma once
#include "kernels/gemm/tile.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

// Where patches and their pixels lie in images [B, 3, S, S].
struct Grid {
  int S, p;
  int width = S / p;

  NANOVLM_HOST_DEVICE int patches() const { return width * width; }
  NANOVLM_HOST_DEVICE int K() const { return 3 * p * p; }

  __device__ int64_t first_pixel(int64_t row) const {
    const int patch = static_cast<int>(row), i = patch % patches();
    return int64_t(patch / patches()) * 3 * S * S + int64_t(i / width * p) * S + i % width * p;
  }
  __device__ int64_t pixel(int64_t k) const {
    const int channel = static_cast<int>(k) / (p * p), in_patch = static_cast<int>(k) % (p * p);
    return (int64_t(channel) * S + in_patch / p) * S + in_patch % p;
  }
};

// Pieces of 4 neighbours must be such in memory, and aligned: p and S are multiples of 4. Images have less than 2^31
// pixels.
template <bool kAlongK>
struct PixelOperand {
  static constexpr int kRows = kAlongK ? GemmTile::kSize : GemmTile::kDepth;  // of a stage: patches
  static constexpr int kColumns = kAlongK ? GemmTile::kDepth : GemmTile::kSize;
  static constexpr int kPiece = 4, kPieces = kColumns / kPiece;
  static constexpr int kChunk = 8, kChunks = kColumns / kChunk;
  static constexpr int kOwnRows = kRows / GemmTile::kWarps, kPairStep = 2 * GemmTile::kWarps;
  static constexpr int kStageEntries = 2 * kRows * kColumns;

  const float* images;
  Grid grid;
  int64_t patches;

  // Of the chunk as bf16: the first entry, which is that of its slot or the slot's middle.
  __device__ static int offset(int row, int chunk) {
    return 2 * (row * kColumns + (chunk ^ (row / 2 % 4)) * kChunk) + row % 2 * kChunk;
  }

  // A warp has pairs of rows, kPairStep apart: it brings them, and rounds them.
  __device__ static int own_row(int i) { return 2 * (thread_in_block() / kWarp) + i / 2 * kPairStep + i % 2; }

  __device__ void copy(bf16* stage, int64_t outer, int64_t k) const {
    constexpr int kTogether = kWarp / kPieces;  // rows by one instruction
    const int lane = thread_in_block() % kWarp, piece = lane % kPieces, row = own_row(lane / kPieces);
    const int column = static_cast<int>(kAlongK ? k : outer) + piece * kPiece;
    float* const to =
        reinterpret_cast<float*>(stage) + row * kColumns + (piece / 2 ^ (row / 2 % 4)) * kChunk + piece % 2 * kPiece;
    // Each lane knows where one row starts, or -1 where there is none.
    const int64_t patch = (kAlongK ? outer : k) + own_row(lane % kOwnRows);
    const int start = patch < patches ? static_cast<int>(grid.first_pixel(patch)) : -1;
    const int pixel = column < grid.K() ? static_cast<int>(grid.pixel(column)) : -1;
#pragma unroll
    for (int i = 0; i < kOwnRows; i += kTogether) {
      const int from = __shfl_sync(kFullMask, start, i + lane / kPieces);
      const bool inside = min(from, pixel) >= 0;
      cp_async16(to + (i / 2 * kPairStep + i % 2) * kColumns, images + (inside ? from + pixel : 0), inside ? 16 : 0);
    }
  }

  // Rounds the warp's rows. Neighbouring lanes have slots of a pair's even and odd row.
  __device__ static void arrived(bf16* stage) {
    constexpr int kPairs = kWarp / (2 * kChunks);  // by one instruction
    const int lane = thread_in_block() % kWarp, odd = lane % 2;
    float* const slot = reinterpret_cast<float*>(stage) + own_row(lane / (2 * kChunks) * 2 + odd) * kColumns +
                        lane / 2 % kChunks * kChunk;
    __syncwarp();  // other lanes' copies have arrived too
#pragma unroll
    for (int i = 0; i < kOwnRows / 2; i += kPairs) {
      float* const pixels = slot + i * kPairStep * kColumns;
      const Vec<float, 4> here = ld16(pixels + odd * kPiece), there = ld16(pixels + (1 - odd) * kPiece);
      Vec<uint32_t, 4> rounded;
      for (int pair = 0; pair < 2; ++pair) {
        const uint32_t near = pack_bf16(here[2 * pair], here[2 * pair + 1]);
        const uint32_t far = pack_bf16(there[2 * pair], there[2 * pair + 1]);
        rounded[pair] = odd ? far : near, rounded[2 + pair] = odd ? near : far;
      }
      st16(reinterpret_cast<uint32_t*>(pixels + odd * kPiece), rounded);
    }
  }

  // As GemmOperand::load.
  __device__ static void load(uint32_t (&r)[4], const bf16* stage, int outer, int k, int outer_half, int k_half) {
    const int in_matrix = thread_in_block() % 8;
    if constexpr (kAlongK)
      ldmatrix_x4(r, stage + offset(outer + 8 * outer_half + in_matrix, k / kChunk + k_half));
    else
      ldmatrix_x4_trans(r, stage + offset(k + 8 * k_half + in_matrix, outer / kChunk + outer_half));
  }
};

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
