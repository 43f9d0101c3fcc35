// The sum of columns on a GPU. A block owns 128 columns and a chunk of rows: a warp adds every eighth row, a lane four
// columns, and the warps' sums are joined in turn. Where there is more than one chunk, a second kernel adds the chunks'
// lines. fp32 sums, in an order that R alone fixes. Bound by memory.
//
// The matrix product is a library's on a GPU; on the simt device kernels/simt/matmul.cpp stands in for it.
#include "kernels/matmul/matmul.h"

#include "kernels/add_lines.cuh"
#include "kernels/elements.cuh"

namespace nanovlm::kernels {
namespace {

constexpr int kWarps = 8, kWidth = 4, kColumns = kWarp * kWidth;
constexpr int64_t kChunkRows = 512;

// lines[chunk][n] = the chunk's sum of column n, or, where `add`, line 0 grows by it. Chunks are blocks of grid.y.
template <class T>
__global__ void column_sum_kernel(const T* x, float* lines, int64_t R, int64_t N, bool vectors, bool add) {
  GPU_SHARED(float, sums, [kWarps][kColumns]);
  const int thread = thread_in_block(), warp = thread / kWarp, lane = thread % kWarp;
  const int64_t column = int64_t(blockIdx.x) * kColumns, columns = min(int64_t{kColumns}, N - column);
  const int64_t first = int64_t(blockIdx.y) * kChunkRows, end = min(first + kChunkRows, R);

  for_elements<kWidth>(columns, vectors, lane, kWarp, [&]<int W>(Width<W>, int64_t c) {
    Vec<float, W> sum = {};
#pragma unroll 8  // loads on their way together
    for (int64_t row = first + warp; row < end; row += kWarps) {
      const Vec<float, W> values = load_floats<W>(x + row * N + column + c);
      for (int i = 0; i < W; ++i) sum[i] += values[i];
    }
    store_floats<W>(&sums[warp][c], sum);
  });
  __syncthreads();
  if (thread >= columns) return;
  float sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += sums[w][thread];
  float* line = lines + blockIdx.y * N + column + thread;
  *line = add ? *line + sum : sum;
}

}  // namespace

template <>
void column_sum(ThisBackend, const ColumnSum& a, Stream stream) {
  if (a.R == 0 || a.N == 0) return;
  const int64_t chunks = ceil_div(a.R, kChunkRows);
  const LaunchShape shape{{ceil_div(a.N, kColumns), chunks}, kWarps * kWarp, 0, stream};
  with_float(a.dtype, [&]<class T>(Type<T>) {
    const bool vectors = a.N % kWidth == 0 && aligned(a.x);
    if (chunks == 1) return launch("column_sum", column_sum_kernel<T>, shape, a.x, a.y, a.R, a.N, vectors, true);
    Scratch lines("column_sum", stream, chunks * a.N * int64_t{sizeof(float)});
    launch("column_sum", column_sum_kernel<T>, shape, a.x, lines.floats(), a.R, a.N, vectors, false);
    add_lines("column_sum_add", lines.floats(), a.y, chunks, a.N, stream);
  });
}

}  // namespace nanovlm::kernels
