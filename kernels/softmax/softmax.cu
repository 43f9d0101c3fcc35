// Softmax over stored scores on a GPU: a warp a row, a lane quads of neighbours. A row is read once from memory, and
// again for each pass from the L1 cache. Bound by memory.
#include "kernels/softmax/softmax.h"

#include "kernels/elements.cuh"

namespace nanovlm::kernels {
namespace {

constexpr int kWarps = 8;  // rows a block takes

// The row of this warp; none where it is not below R.
__device__ int64_t row_of_warp() { return int64_t(blockIdx.x) * kWarps + thread_in_block() / kWarp; }

template <class In, class Out>
__global__ void softmax_kernel(const In* scores, Out* probabilities, int64_t R, int64_t T, float scale, bool causal,
                               bool vectors) {
  const int64_t row = row_of_warp(), seen = causal ? row % T + 1 : T;
  if (row >= R) return;  // the whole warp leaves
  const In* const s = scores + row * T;
  Out* const p = probabilities + row * T;
  // Quads that reach beyond what is seen are read whole: the rest of them is left out of the sums.
  const auto for_row = [&](const auto& f) { for_elements<4>(T, vectors, thread_in_block() % kWarp, kWarp, f); };

  float max = -INFINITY;
  for_row([&]<int W>(Width<W>, int64_t t) {
    const Vec<float, W> x = load_floats<W>(s + t);
    for (int i = 0; i < W; ++i)
      if (t + i < seen) max = fmaxf(max, x[i]);
  });
  max = warp_max(max);
  float sum = 0;
  for_row([&]<int W>(Width<W>, int64_t t) {
    const Vec<float, W> x = load_floats<W>(s + t);
    for (int i = 0; i < W; ++i)
      if (t + i < seen) sum += expf((x[i] - max) * scale);
  });
  const float factor = 1 / warp_sum(sum);
  for_row([&]<int W>(Width<W>, int64_t t) {
    Vec<float, W> x = load_floats<W>(s + t);
    for (int i = 0; i < W; ++i) x[i] = t + i < seen ? expf((x[i] - max) * scale) * factor : 0;
    store_floats<W>(p + t, x);
  });
}

template <class T>
__global__ void softmax_backward_kernel(const T* p, const T* dp, T* ds, int64_t R, int64_t C, float scale,
                                        bool vectors) {
  const int64_t row = row_of_warp(), offset = row * C;
  if (row >= R) return;  // the whole warp leaves
  const auto for_row = [&](const auto& f) { for_elements<4>(C, vectors, thread_in_block() % kWarp, kWarp, f); };

  float sum = 0;
  for_row([&]<int W>(Width<W>, int64_t c) {
    const Vec<float, W> x = load_floats<W>(p + offset + c), dx = load_floats<W>(dp + offset + c);
    for (int i = 0; i < W; ++i) sum += x[i] * dx[i];
  });
  sum = warp_sum(sum);
  for_row([&]<int W>(Width<W>, int64_t c) {
    Vec<float, W> x = load_floats<W>(p + offset + c);
    const Vec<float, W> dx = load_floats<W>(dp + offset + c);
    for (int i = 0; i < W; ++i) x[i] *= scale * (dx[i] - sum);
    store_floats<W>(ds + offset + c, x);
  });
}

LaunchShape shape_of(int64_t R, Stream stream) { return {ceil_div(R, kWarps), kWarps * kWarp, 0, stream}; }

}  // namespace

template <>
void softmax(ThisBackend, const Softmax& a, Stream stream) {
  if (a.R == 0 || a.T == 0) return;
  with_float(a.in, [&]<class In>(Type<In>) {
    with_float(a.out, [&]<class Out>(Type<Out>) {
      launch("softmax", softmax_kernel<In, Out>, shape_of(a.R, stream), a.s, a.p, a.R, a.T, a.scale, a.causal,
             a.T % 4 == 0 && aligned(a.s, a.p));
    });
  });
}

template <>
void softmax_backward(ThisBackend, const SoftmaxBackward& a, Stream stream) {
  if (a.R == 0 || a.T == 0) return;
  with_float(a.dtype, [&]<class T>(Type<T>) {
    launch("softmax_backward", softmax_backward_kernel<T>, shape_of(a.R, stream), a.p, a.dp, a.ds, a.R, a.T, a.scale,
           a.T % 4 == 0 && aligned(a.p, a.dp, a.ds));
  });
}

}  // namespace nanovlm::kernels
