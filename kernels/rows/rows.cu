// Moving whole rows on a GPU, by vectors where the rows' length allows it. Gather and scatter: a warp a row. Gather's
// gradient: a block of 64 threads adds up one target's rows, a vector of four columns a thread, in the order given. A
// target with many rows, as the token that pads texts is, would keep a block busy long after all others have ended:
// such are noted in a list, for a second kernel that shares a target's rows among 8 warps, each with neighbours in the
// order given, and adds the shares in turn. fp32 sums, in an order that the number of rows fixes. Bound by memory.
#include "kernels/rows/rows.h"

#include "kernels/elements.cuh"
#include "kernels/elementwise/elementwise.h"

namespace nanovlm::kernels {
namespace {

constexpr int kWarps = 8;  // rows a block moves

// Gather: y[r] = x[index[r]]. Scatter: y[index[r]] = x[r].
template <bool kScatter, class In, class Out>
__global__ void move_rows_kernel(const In* x, const int32_t* index, Out* y, int64_t R, int64_t C, bool vectors) {
  const int thread = thread_in_block();
  const int64_t row = int64_t(blockIdx.x) * kWarps + thread / kWarp;
  if (row >= R) return;
  const int64_t named = index[row];
  const In* from = x + (kScatter ? row : named) * C;
  Out* to = y + (kScatter ? named : row) * C;
  for_elements<kVectorWidth<In, Out>>(C, vectors, thread % kWarp, kWarp, [&]<int W>(Width<W>, int64_t c) {
    store_floats<W>(to + c, load_floats<W>(from + c));
  });
}

template <bool kScatter, class Rows>
void move_rows(const char* name, const Rows& a, Stream stream) {
  if (a.R == 0 || a.C == 0) return;
  with_float(a.in, [&]<class In>(Type<In>) {
    with_float(a.out, [&]<class Out>(Type<Out>) {
      const bool vectors = a.C % kVectorWidth<In, Out> == 0 && aligned(a.x, a.y);
      launch(name, move_rows_kernel<kScatter, In, Out>, {ceil_div(a.R, kWarps), kWarps * kWarp, 0, stream}, a.x,
             a.index, a.y, a.R, a.C, vectors);
    });
  });
}

constexpr int kSumWidth = 4, kSumThreads = 64;

// Targets with more than kShortRun rows, in any order.
struct LongRuns {
  static constexpr int kShortRun = 64;
  int *count, *list;
};

// Block (u, part): target u, columns part * kSumThreads * kSumWidth and on.
template <class T>
__global__ void add_rows_kernel(const GatherRowsBackward a, const LongRuns runs, bool vectors) {
  const int64_t u = blockIdx.x, target = a.target[u];
  if (target < 0) return;
  const int begin = a.starts[u], end = a.starts[u + 1];
  if (end - begin > LongRuns::kShortRun) {
    if (blockIdx.y == 0 && threadIdx.x == 0) runs.list[atomicAdd(runs.count, 1)] = static_cast<int>(u);
    return;
  }
  const int64_t thread = int64_t(blockIdx.y) * kSumThreads + threadIdx.x, threads = int64_t(gridDim.y) * kSumThreads;
  for_elements<kSumWidth>(a.C, vectors, thread, threads, [&]<int W>(Width<W>, int64_t c) {
    Vec<float, W> sum = {};
    for (int i = begin; i < end; ++i) {
      const Vec<float, W> dy = load_floats<W>(static_cast<const T*>(a.dy) + a.order[i] * a.C + c);
      for (int j = 0; j < W; ++j) sum[j] += dy[j];
    }
    float* dx = a.dx + target * a.C + c;
    const Vec<float, W> before = load_floats<W>(dx);
    for (int j = 0; j < W; ++j) sum[j] += before[j];
    store_floats<W>(dx, sum);
  });
}

constexpr int kRunWarps = 8, kRunColumns = kWarp * kSumWidth, kRunBlocks = 64;

// The sum of W columns from c on of the rows that `order` names from begin to end: 16 rows are asked for at a time.
template <int W, class T>
__device__ Vec<float, W> sum_of_rows(const GatherRowsBackward& a, int begin, int end, int64_t c) {
  constexpr int kTogether = 16;
  Vec<float, W> sum = {};
  for (; begin < end; begin += kTogether) {
    Vec<float, W> dy[kTogether] = {};
#pragma unroll
    for (int i = 0; i < kTogether; ++i)
      if (begin + i < end) dy[i] = load_floats<W>(static_cast<const T*>(a.dy) + a.order[begin + i] * a.C + c);
#pragma unroll
    for (int i = 0; i < kTogether; ++i)
      for (int j = 0; j < W; ++j) sum[j] += dy[i][j];
  }
  return sum;
}

// Block (i, part): every kRunBlocks-th of the long runs, columns part * kRunColumns and on.
template <class T>
__global__ void __launch_bounds__(kRunWarps* kWarp, 2)
    add_long_runs_kernel(const GatherRowsBackward a, const LongRuns runs, bool vectors) {
  GPU_SHARED(float, sums, [kRunWarps][kRunColumns]);
  const int thread = thread_in_block(), warp = thread / kWarp, lane = thread % kWarp, count = *runs.count;
  const int64_t column = int64_t(blockIdx.y) * kRunColumns, columns = min(int64_t{kRunColumns}, a.C - column);
  for (int run = static_cast<int>(blockIdx.x); run < count; run += kRunBlocks) {
    const int u = runs.list[run], begin = a.starts[u], end = a.starts[u + 1];
    const int share = static_cast<int>(ceil_div(end - begin, kRunWarps)), first = begin + warp * share;
    for_elements<kSumWidth>(columns, vectors, lane, kWarp, [&]<int W>(Width<W>, int64_t c) {
      store_floats<W>(&sums[warp][c], sum_of_rows<W, T>(a, first, min(first + share, end), column + c));
    });
    __syncthreads();
    if (thread < columns) {
      float sum = 0;
      for (int w = 0; w < kRunWarps; ++w) sum += sums[w][thread];
      a.dx[a.target[u] * a.C + column + thread] += sum;
    }
    __syncthreads();  // sums have been read
  }
}

}  // namespace

template <>
void gather_rows(ThisBackend, const GatherRows& a, Stream stream) {
  move_rows<false>("gather_rows", a, stream);
}

template <>
void scatter_rows(ThisBackend, const ScatterRows& a, Stream stream) {
  move_rows<true>("scatter_rows", a, stream);
}

template <>
void gather_rows_backward(ThisBackend backend, const GatherRowsBackward& a, Stream stream) {
  if (a.U == 0 || a.C == 0) return;
  const bool vectors = a.C % kSumWidth == 0 && aligned(a.dy, a.dx);
  Scratch memory("gather_rows_backward", stream, (a.U + 1) * int64_t{sizeof(int)});
  int* const count = reinterpret_cast<int*>(memory.floats());
  const LongRuns runs{count, count + 1};
  fill(backend, {count, 1, 0.0f, DType::f32}, stream);
  const Extent short_grid{a.U, ceil_div(a.C, kSumThreads * kSumWidth)};
  const Extent long_grid{min(a.U, int64_t{kRunBlocks}), ceil_div(a.C, kRunColumns)};
  with_float(a.dtype, [&]<class T>(Type<T>) {
    launch("gather_rows_backward", add_rows_kernel<T>, {short_grid, kSumThreads, 0, stream}, a, runs, vectors);
    launch("gather_rows_backward_long", add_long_runs_kernel<T>, {long_grid, kRunWarps * kWarp, 0, stream}, a, runs,
           vectors);
  });
}

}  // namespace nanovlm::kernels
