// Moving whole rows on a GPU, by vectors where the rows' length allows it. Gather and scatter: a warp a row. Gather's
// gradient: a block of 64 threads adds up one target's rows, a vector of four columns a thread, in the order given.
// fp32 sums. Bound by memory.
#include "kernels/rows/rows.h"

#include "kernels/elements.cuh"

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

// Block (u, part): target u, columns part * kSumThreads * kSumWidth and on.
template <class T>
__global__ void add_rows_kernel(const GatherRowsBackward a, bool vectors) {
  const int64_t u = blockIdx.x, target = a.target[u];
  if (target < 0) return;
  const int begin = a.starts[u], end = a.starts[u + 1];
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
void gather_rows_backward(ThisBackend, const GatherRowsBackward& a, Stream stream) {
  if (a.U == 0 || a.C == 0) return;
  const bool vectors = a.C % kSumWidth == 0 && aligned(a.dy, a.dx);
  const int64_t parts = ceil_div(a.C, kSumThreads * kSumWidth);
  with_float(a.dtype, [&]<class T>(Type<T>) {
    launch("gather_rows_backward", add_rows_kernel<T>, {{a.U, parts}, kSumThreads, 0, stream}, a, vectors);
  });
}

}  // namespace nanovlm::kernels
