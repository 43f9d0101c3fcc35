// A product of bf16 matrices by mma.sync, tile by tile of its result; what becomes of the sums is an epilogue's.
//
// A block of 8 warps owns 128 x 128 sums, a warp 64 x 32 of them in registers. The operands pass through shared memory
// in stages of depth 64, three of them for matrices of bf16: while one is multiplied the next two are on their way
// (cp.async), with one barrier a stage. 16-byte chunks are swizzled, chunk ^ row % 8, so that neither copies nor
// ldmatrix meet bank conflicts. In the end the sums go through shared memory once, so that warps meet them in rows.
//
// Products are exact, sums fp32 by rising k. Bound by arithmetic: 32 multiply-adds for each byte copied, and 10.7 for
// each byte that ldmatrix reads. At 128 bytes a clock that is 1,365, more than the 1,024 of an A100's tensor cores.
#pragma once
#include "kernels/device.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

struct GemmTile {
  static constexpr int kSize = 128;  // rows and columns of sums
  static constexpr int kDepth = 64;  // of k in a stage
  static constexpr int kStages = 3;
  static constexpr int kWarps = 8, kThreads = kWarps * kWarp;
  static constexpr int kWarpRows = 64, kWarpColumns = 32;
  static constexpr int kStageEntries = 2 * kSize * kDepth;
  static constexpr int64_t kSharedBytes = int64_t{kStages} * kStageEntries * sizeof(bf16);
  // Rows of sums in shared memory lie 8 banks apart: the 4 rows that half a warp stores at once fill the 32 banks.
  static constexpr int kSumStep = kSize + 8;
  static_assert(kSize * kSumStep * sizeof(float) <= kSharedBytes);
};

// A matrix without gaps: where an entry lies. Others (kernels/pixel_shuffle/projector.cu) keep at least whole chunks
// of 8 entries together.
struct PlainRows {
  const bf16* data;
  int64_t columns;

  __device__ const bf16* at(int64_t row, int64_t column) const { return data + row * columns + column; }
};

// One operand of a product over k: 128 rows of a, or 128 columns of b, are a tile's `outer`. In memory its rows run
// along k, or along the outer index. Others (kernels/patch_embedding/pixels.cuh) have the same members.
template <bool kAlongK, class Place = PlainRows>
struct GemmOperand {
  static constexpr int kRows = kAlongK ? GemmTile::kSize : GemmTile::kDepth;  // of a stage in shared memory
  static constexpr int kColumns = kAlongK ? GemmTile::kDepth : GemmTile::kSize;
  static constexpr int kChunk = 8, kChunks = kColumns / kChunk;
  static constexpr int kStageEntries = kRows * kColumns;

  Place place;
  int64_t rows, columns;  // in memory
  bool by_chunks;         // chunks lie at multiples of 16 bytes

  __device__ static int offset(int row, int chunk) { return row * kColumns + (chunk ^ (row % 8)) * kChunk; }

  // Brings the stage from `outer`, `k` on, with zeros for what lies outside.
  __device__ void copy(bf16* stage, int64_t outer, int64_t k) const {
    const int64_t first_row = kAlongK ? outer : k, first_column = kAlongK ? k : outer;
    for (int i = thread_in_block(); i < kRows * kChunks; i += GemmTile::kThreads) {
      const int64_t row = first_row + i / kChunks, column = first_column + i % kChunks * kChunk;
      const int inside = row < rows ? static_cast<int>(max(min(columns - column, int64_t{kChunk}), int64_t{0})) : 0;
      const bf16* from = inside > 0 ? place.at(row, column) : place.data;
      bf16* to = stage + offset(i / kChunks, i % kChunks);
      if (by_chunks) {
        cp_async16(to, from, inside * static_cast<int>(sizeof(bf16)));
      } else {
        Vec<bf16, kChunk> chunk{};
#pragma unroll
        for (int j = 0; j < kChunk; ++j)
          if (j < inside) chunk[j] = *place.at(row, column + j);
        st16(to, chunk);
      }
    }
  }

  // What the warp does with its copies once they have arrived, before the block meets.
  __device__ static void arrived(bf16*) {}

  // Four 8x8 matrices of a stage, outer index by k as mma.sync wants them: matrix i starts 8 outer_half(i) further on
  // in outer, 8 k_half(i) further on in k, where this lane belongs to matrix lane / 8.
  __device__ static void load(uint32_t (&r)[4], const bf16* stage, int outer, int k, int outer_half, int k_half) {
    const int in_matrix = thread_in_block() % 8;
    if constexpr (kAlongK)
      ldmatrix_x4(r, stage + offset(outer + 8 * outer_half + in_matrix, k / kChunk + k_half));
    else
      ldmatrix_x4_trans(r, stage + offset(k + 8 * k_half + in_matrix, outer / kChunk + outer_half));
  }
};

// The sums of one warp: 4 x 4 fragments of mma_m16n8k16.
struct GemmSums {
  float sum[4][4][4] = {};

  template <class A, class B>
  __device__ void add(const bf16* a, const bf16* b) {
    const int warp = thread_in_block() / kWarp, lane = thread_in_block() % kWarp;
    const int row = warp / 4 * GemmTile::kWarpRows, column = warp % 4 * GemmTile::kWarpColumns;
    const int low = lane / 8 % 2, high = lane / 16;  // of the number of the matrix that this lane brings a row of
#pragma unroll
    for (int k = 0; k < GemmTile::kDepth; k += 16) {
      uint32_t x[4][4], y[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) A::load(x[i], a, row + 16 * i, k, low, high);
#pragma unroll
      for (int j = 0; j < 2; ++j) B::load(y[j], b, column + 16 * j, k, high, low);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const uint32_t part[2] = {y[j / 2][j % 2 * 2], y[j / 2][j % 2 * 2 + 1]};
          mma_m16n8k16(sum[i][j], x[i], part);
        }
    }
  }

  // Into rows of kSumStep floats.
  __device__ void store(float* rows) const {
    const int warp = thread_in_block() / kWarp, lane = thread_in_block() % kWarp;
    rows += (warp / 4 * GemmTile::kWarpRows + lane / 4) * GemmTile::kSumStep;
    rows += warp % 4 * GemmTile::kWarpColumns + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          st8(rows + (16 * i + 8 * half) * GemmTile::kSumStep + 8 * j,
              Vec<float, 2>{sum[i][j][2 * half], sum[i][j][2 * half + 1]});
  }
};

// Where a block's tile lies. Blocks that run together cover bands of 8 tile rows, so that they share what they read in
// the L2 cache.
struct GemmPlace {
  int64_t row, column;

  __device__ GemmPlace(int64_t M, int64_t N) {
    constexpr int64_t kBand = 8;
    const int64_t tile_rows = ceil_div(M, GemmTile::kSize), tile_columns = ceil_div(N, GemmTile::kSize);
    const int64_t first = blockIdx.x / (kBand * tile_columns) * kBand, i = blockIdx.x % (kBand * tile_columns);
    const int64_t height = min(kBand, tile_rows - first);
    row = (first + i % height) * GemmTile::kSize;
    column = i / height * GemmTile::kSize;
  }
};

// Calls epilogue(row, column, sums) for the rows < M of a tile, whose sums lie in shared memory: by a whole warp for
// each row, lane l with the sums of the columns 4 l ... 4 l + 3 of the tile. Those from N on are 0.
template <class Epilogue>
__device__ void finish_rows(const float* rows, const GemmPlace& at, int64_t M, const Epilogue& epilogue) {
  const int warp = thread_in_block() / kWarp, lane = thread_in_block() % kWarp;
  for (int row = warp; row < GemmTile::kSize && at.row + row < M; row += GemmTile::kWarps)
    epilogue(at.row + row, at.column + 4 * lane, ld16(rows + row * GemmTile::kSumStep + 4 * lane));
}

// The stages of two operands in shared memory: as many as have room where three of bf16 matrices do.
template <class A, class B>
struct GemmStages {
  static constexpr int kEntries = A::kStageEntries + B::kStageEntries;
  static constexpr int kCount = GemmTile::kStages * GemmTile::kStageEntries / kEntries;
  static_assert(kCount >= 2);
};

// Block (x, y) adds up all of k, or where kParts its part y: `share` of it, in whole stages.
template <bool kParts, class A, class B, class Epilogue>
__global__ void __launch_bounds__(GemmTile::kThreads, 2)
    gemm_kernel(const A a, const B b, const Epilogue epilogue, int64_t M, int64_t N, int64_t K, int64_t share) {
  using Stages = GemmStages<A, B>;
  constexpr int kAhead = Stages::kCount - 1;
  GPU_SHARED_DYNAMIC(bf16, memory);
  bf16* const stages = memory + 0;
  const GemmPlace at(M, N);
  const int64_t first = kParts ? int64_t(blockIdx.y) * share : 0;
  const int steps = static_cast<int>(ceil_div(kParts ? min(share, K - first) : K, GemmTile::kDepth));
  const auto a_stage = [&](int step) { return stages + step % Stages::kCount * Stages::kEntries; };
  const auto b_stage = [&](int step) { return a_stage(step) + A::kStageEntries; };
  const auto copy = [&](int step) {
    if (step < steps) {
      a.copy(a_stage(step), at.row, first + int64_t{step} * GemmTile::kDepth);
      b.copy(b_stage(step), at.column, first + int64_t{step} * GemmTile::kDepth);
    }
    cp_async_commit();  // one group a step, even if empty
  };

  GemmSums sums;
  for (int step = 0; step < kAhead; ++step) copy(step);
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<kAhead - 1>();
    A::arrived(a_stage(step)), B::arrived(b_stage(step));
    __syncthreads();  // everyone's copies have arrived, and the stage before this one has been read
    copy(step + kAhead);
    sums.template add<A, B>(a_stage(step), b_stage(step));
  }

  cp_async_wait<0>();
  __syncthreads();
  float* const rows = reinterpret_cast<float*>(stages);
  sums.store(rows);
  __syncthreads();
  finish_rows(rows, at, M, epilogue);
}

// A matrix [outer, K] where kAlongK, else [K, outer].
template <bool kAlongK>
GemmOperand<kAlongK> gemm_operand(const bf16* data, int64_t outer, int64_t K) {
  const int64_t rows = kAlongK ? outer : K, columns = kAlongK ? K : outer;
  return {{data, columns}, rows, columns, columns % 8 == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0};
}

template <class A, class B, class Epilogue>
void launch_gemm(const char* name, const A& a, const B& b, const Epilogue& epilogue, int64_t M, int64_t N, int64_t K,
                 Stream stream) {
  const LaunchShape shape{ceil_div(M, GemmTile::kSize) * ceil_div(N, GemmTile::kSize), GemmTile::kThreads,
                          GemmTile::kSharedBytes, stream};
  launch(name, gemm_kernel<false, A, B, Epilogue>, shape, a, b, epilogue, M, N, K, K);
}

template <bool kTransposeA, bool kTransposeB, class Epilogue>
void launch_gemm(const char* name, const bf16* a, const bf16* b, const Epilogue& epilogue, int64_t M, int64_t N,
                 int64_t K, Stream stream) {
  launch_gemm(name, gemm_operand<!kTransposeA>(a, M, K), gemm_operand<kTransposeB>(b, N, K), epilogue, M, N, K, stream);
}

// The same sums in parts: blocks of the grid's row y hand the epilogue what part y of k adds.
template <class A, class B, class Epilogue>
void launch_gemm_parts(const char* name, const A& a, const B& b, const Epilogue& epilogue, int64_t M, int64_t N,
                       int64_t K, int64_t share, Stream stream) {
  const Extent grid{ceil_div(M, GemmTile::kSize) * ceil_div(N, GemmTile::kSize), ceil_div(K, share)};
  launch(name, gemm_kernel<true, A, B, Epilogue>, {grid, GemmTile::kThreads, GemmTile::kSharedBytes, stream}, a, b,
         epilogue, M, N, K, share);
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
