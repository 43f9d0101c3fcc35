// Patch embedding on a GPU: products that read pixels where they lie, in both directions. Bound by arithmetic.
//
//   y = patches weight^T + bias + position,   dweight += dy^T patches,   dimages = dy weight, each at its pixel
//
// bf16 where p and S are multiples of 4: y and dweight by the tiles of gemm/tile.cuh, whose pixels are rounded on the
// way (pixels.cuh). dweight has few tiles and a long sum: it is cut into parts, as many as make a wave of blocks, and
// the parts are added in turn. dy is read once: what adds up the position's gradient leaves it rounded. Everything
// else, and dimages, by the plainer product.cuh.
#include "kernels/patch_embedding/patch_embedding.h"

#include "kernels/add_lines.cuh"
#include "kernels/elements.cuh"
#include "kernels/matmul/matmul.h"
#include "kernels/patch_embedding/pixels.cuh"
#include "kernels/patch_embedding/product.cuh"

namespace nanovlm::kernels {
namespace {

// Operands of a product. Rows of patches, summed over their pixels:
struct PatchPixels {
  static constexpr bool kAlongK = true;
  const float* data;
  Grid grid;
  __device__ int64_t outer(int64_t row) const { return grid.first_pixel(row); }
  __device__ int64_t inner(int64_t k) const { return grid.pixel(k); }
};
// Pixels of patches, summed over the patches:
struct PixelPatches {
  static constexpr bool kAlongK = false;
  const float* data;
  Grid grid;
  __device__ int64_t outer(int64_t k) const { return grid.pixel(k); }
  __device__ int64_t inner(int64_t row) const { return grid.first_pixel(row); }
};
// Rows of a matrix, and columns of one.
template <class T>
struct Rows {
  static constexpr bool kAlongK = true;
  const T* data;
  int64_t stride;
  __device__ int64_t outer(int64_t row) const { return row * stride; }
  __device__ int64_t inner(int64_t k) const { return k; }
};
template <class T>
struct Columns {
  static constexpr bool kAlongK = false;
  const T* data;
  int64_t stride;
  __device__ int64_t outer(int64_t column) const { return column; }
  __device__ int64_t inner(int64_t k) const { return k * stride; }
};

// What becomes of the products: of one, or of two neighbours where `pairs` says that they may be stored together.
struct Embedding {
  float* y;
  const float *bias, *position;
  int64_t C, P;
  bool pairs;
  template <int W>
  __device__ void store(int64_t row, int64_t c, Vec<float, W> sum) const {
    add(sum, bias + c);
    if (position) add(sum, position + row % P * C + c);
    store_floats<W>(y + row * C + c, sum);
  }
  template <int W>
  static __device__ void add(Vec<float, W>& sum, const float* terms) {
    const Vec<float, W> x = load_floats<W>(terms);
    for (int i = 0; i < W; ++i) sum[i] += x[i];
  }
};
struct AddTo {
  float* sums;
  int64_t stride;
  bool pairs;
  template <int W>
  __device__ void store(int64_t row, int64_t column, const Vec<float, W>& sum) const {
    float* to = sums + row * stride + column;
    Vec<float, W> x = load_floats<W>(to);
    for (int i = 0; i < W; ++i) x[i] += sum[i];
    store_floats<W>(to, x);
  }
};
// The sums of a part of k, by themselves.
struct PartOf {
  float* parts;  // [parts, rows, columns]
  int64_t rows, columns;
  template <int W>
  __device__ void store(int64_t row, int64_t column, const Vec<float, W>& sum) const {
    store_floats<W>(parts + (blockIdx.y * rows + row) * columns + column, sum);
  }
};
template <class T>
struct AtPixel {
  float* images;
  Grid grid;
  bool pairs;
  template <int W>
  __device__ void store(int64_t row, int64_t k, Vec<float, W> sum) const {
    for (int i = 0; i < W; ++i) sum[i] = static_cast<float>(round_to<T>(sum[i]));
    store_floats<W>(images + grid.first_pixel(row) + grid.pixel(k), sum);
  }
};

// A result as an epilogue of gemm/tile.cuh, which has four neighbours for it.
template <class Result>
struct Quads {
  Result result;
  int64_t N;
  bool together;
  __device__ void operator()(int64_t row, int64_t column, const Vec<float, 4>& sums) const {
    if (together) {
      if (column < N) result.store(row, column, sums);
      return;
    }
    for (int i = 0; i < 4; ++i)
      if (column + i < N) result.store(row, column + i, Vec<float, 1>{sums[i]});
  }
};

constexpr int kThreads = 256;

// 0 for the pixels that fill no patch.
__global__ void zero_margin_kernel(float* images, int64_t pixels, int S, int covered) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < pixels && (i % S >= covered || i / S % S >= covered)) images[i] = 0;
}

constexpr int kSumWidth = 4, kSumThreads = 64;

// sums [P, C] = dy [B, P, C] added up over B, by which dposition grows; and dy rounded. Either of the last may be null.
// A thread owns columns of the n = P C, and asks for 8 rows of them before it stores any.
__global__ void sum_and_round_kernel(const float* dy, float* dposition, bf16* rounded, float* sums, int64_t B,
                                     int64_t n, bool vectors) {
  constexpr int kRows = 8;
  for_grid_elements<kSumWidth>(n, vectors, [&]<int W>(Width<W>, int64_t c) {
    Vec<float, W> sum = {};
    for (int64_t first = 0; first < B; first += kRows) {
      Vec<float, W> x[kRows] = {};
#pragma unroll
      for (int i = 0; i < kRows; ++i)
        if (first + i < B) x[i] = load_floats<W>(dy + (first + i) * n + c);
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        for (int j = 0; j < W; ++j) sum[j] += x[i][j];
        if (rounded && first + i < B) store_floats<W>(rounded + (first + i) * n + c, x[i]);
      }
    }
    store_floats<W>(sums + c, sum);
    if (!dposition) return;
    const Vec<float, W> before = load_floats<W>(dposition + c);
    for (int j = 0; j < W; ++j) sum[j] += before[j];
    store_floats<W>(dposition + c, sum);
  });
}

// The gradients of bias and position, and `rounded` where it is not null. The bias's is the sum of what the position's
// grows by.
template <class Backend>
void sum_and_round(Backend backend, const PatchEmbeddingBackward& a, bf16* rounded, int64_t P, Stream stream) {
  if (!a.dbias && !a.dposition && !rounded) return;
  const int64_t n = P * a.C;
  const bool vectors = n % kSumWidth == 0 && aligned(a.dy, a.dposition, rounded);
  Scratch sums("patch_embedding_dposition", stream, n * int64_t{sizeof(float)});
  launch("patch_embedding_dposition", sum_and_round_kernel,
         {ceil_div(n, kSumWidth * kSumThreads), kSumThreads, 0, stream}, a.dy, a.dposition, rounded, sums.floats(), a.B,
         n, vectors);
  if (a.dbias) column_sum(backend, {sums.floats(), a.dbias, P, a.C, DType::f32}, stream);
}

// Whether tiles can be made of the pixels as pixels.cuh does.
bool has_tiles(const float* images, int64_t B, const Grid& grid, DType dtype) {
  return dtype == DType::bf16 && grid.S % 4 == 0 && grid.p % 4 == 0 && aligned(images) &&
         B * 3 * grid.S * grid.S <= INT32_MAX;
}

// dweight += dy^T patches.
void add_weight_gradient(const PatchEmbeddingBackward& a, const Grid& grid, int64_t rows, Stream stream) {
  // As many blocks as an H100 holds at once, 2 a multiprocessor, but parts worth their while.
  constexpr int64_t kBlocks = 264, kLeastRows = 512;
  const int64_t K = grid.K(), tiles = ceil_div(a.C, GemmTile::kSize) * ceil_div(K, GemmTile::kSize);
  const int64_t most = max(min(kBlocks / tiles, rows / kLeastRows), int64_t{1});
  const int64_t share = ceil_div(ceil_div(rows, most), GemmTile::kDepth) * GemmTile::kDepth;
  const int64_t parts = ceil_div(rows, share);
  const auto dy = gemm_operand<false>(static_cast<const bf16*>(a.dy_rounded), a.C, rows);
  const PixelOperand<false> pixels{a.images, grid, rows};
  if (parts == 1) {
    const Quads<AddTo> sums{{a.dweight, K, true}, K, aligned(a.dweight)};
    return launch_gemm("patch_embedding_dweight", dy, pixels, sums, a.C, K, rows, stream);
  }
  Scratch sums("patch_embedding_dweight", stream, parts * a.C * K * int64_t{sizeof(float)});
  launch_gemm_parts("patch_embedding_dweight", dy, pixels, Quads<PartOf>{{sums.floats(), a.C, K}, K, true}, a.C, K,
                    rows, share, stream);
  add_lines("patch_embedding_dweight_add", sums.floats(), a.dweight, parts, a.C * K, stream);
}

}  // namespace

template <>
void patch_embedding(ThisBackend, const PatchEmbedding& a, Stream stream) {
  const Grid grid{a.S, a.p};
  const int64_t P = grid.patches(), K = grid.K();
  if (a.B * P * a.C == 0) return;
  const bool whole = aligned(a.y, a.bias, a.position);
  const Embedding embedding{a.y, a.bias, a.position, a.C, P, a.C % 2 == 0 && whole};
  if (has_tiles(a.images, a.B, grid, a.dtype))
    return launch_gemm("patch_embedding", PixelOperand<true>{a.images, grid, a.B * P},
                       gemm_operand<true>(static_cast<const bf16*>(a.weight), a.C, K),
                       Quads<Embedding>{embedding, a.C, a.C % 4 == 0 && whole}, a.B * P, a.C, K, stream);
  with_float(a.dtype, [&]<class T>(Type<T>) {
    launch_product<T>("patch_embedding", PatchPixels{a.images, grid}, Rows<T>{static_cast<const T*>(a.weight), K},
                      embedding, a.B * P, a.C, K, stream);
  });
}

template <>
void patch_embedding_backward(ThisBackend backend, const PatchEmbeddingBackward& a, Stream stream) {
  const Grid grid{a.S, a.p};
  const int64_t P = grid.patches(), K = grid.K(), rows = a.B * P, pixels = a.B * 3 * a.S * a.S;
  const int covered = grid.width * a.p;
  if (a.dimages && covered != a.S && pixels > 0)
    launch("patch_embedding_margin", zero_margin_kernel, {ceil_div(pixels, kThreads), kThreads, 0, stream}, a.dimages,
           pixels, a.S, covered);
  if (rows * a.C == 0) return;
  const bool tiles = a.dweight && has_tiles(a.images, a.B, grid, a.dtype);
  sum_and_round(backend, a, tiles ? static_cast<bf16*>(a.dy_rounded) : nullptr, P, stream);
  if (tiles) add_weight_gradient(a, grid, rows, stream);
  with_float(a.dtype, [&]<class T>(Type<T>) {
    if (a.dweight && !tiles)
      launch_product<T>("patch_embedding_dweight", Columns<float>{a.dy, a.C}, PixelPatches{a.images, grid},
                        AddTo{a.dweight, K, K % 2 == 0 && aligned(a.dweight)}, a.C, K, rows, stream);
    if (a.dimages)
      launch_product<T>(
          "patch_embedding_dimages", Rows<float>{a.dy, a.C}, Columns<T>{static_cast<const T*>(a.weight), K},
          AtPixel<T>{a.dimages, grid, a.p % 2 == 0 && a.S % 2 == 0 && aligned(a.dimages)}, rows, K, a.C, stream);
  });
}

}  // namespace nanovlm::kernels
