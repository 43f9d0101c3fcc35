// SwiGLU's gate on a GPU: a thread a vector of 16 bytes, a block a row or part of one, fp32 arithmetic. Bound by
// memory.
#include "kernels/swiglu/swiglu.h"

#include "kernels/elements.cuh"
#include "kernels/sigmoid.cuh"

namespace nanovlm::kernels {
namespace {

// How blocks share rows. Rows without gaps are one long row.
struct Rows {
  int64_t R, C, stride;
  unsigned parts;
  bool vectors;

  // Calls f(width, element of gate and up, element of y) for this thread's elements.
  template <int N, class F>
  __device__ void for_each(const F& f) const {
    const int64_t row = blockIdx.x / parts, thread = blockIdx.x % parts * blockDim.x + threadIdx.x;
    for_elements<N>(C, vectors, thread, parts * blockDim.x,
                    [&]<int W>(Width<W> width, int64_t c) { f(width, row * stride + c, row * C + c); });
  }
};

template <class T>
__global__ void swiglu_kernel(const T* gate, const T* up, T* y, const Rows rows) {
  rows.for_each<kVectorWidth<T>>([&]<int W>(Width<W>, int64_t at, int64_t dense) {
    const Vec<float, W> g = load_floats<W>(gate + at);
    Vec<float, W> value = load_floats<W>(up + at);
    for (int j = 0; j < W; ++j) value[j] *= g[j] * sigmoid_pair(g[j]).plus;
    store_floats<W>(y + dense, value);
  });
}

template <class T>
__global__ void swiglu_backward_kernel(const T* gate, const T* up, const T* dy, T* dgate, T* dup, T* y,
                                       const Rows rows) {
  rows.for_each<kVectorWidth<T>>([&]<int W>(Width<W>, int64_t at, int64_t dense) {
    Vec<float, W> g = load_floats<W>(gate + at), u = load_floats<W>(up + at), d = load_floats<W>(dy + dense);
    for (int j = 0; j < W; ++j) {
      const SigmoidPair s = sigmoid_pair(g[j]);
      const float silu = g[j] * s.plus, slope = d[j];
      d[j] *= u[j] * (s.plus * (1 + g[j] * s.minus));  // dgate
      g[j] = slope * silu;                             // dup
      u[j] *= silu;                                    // y
    }
    store_floats<W>(dgate + at, d);
    store_floats<W>(dup + at, g);
    if (y) store_floats<W>(y + dense, u);
  });
}

// Calls f(launch shape, rows) with as many threads as a row or part of one has vectors.
template <class T, class F>
void with_rows(int64_t R, int64_t C, int64_t stride, bool aligned, Stream stream, const F& f) {
  constexpr int64_t kMostThreads = 256, N = kVectorWidth<T>;
  if (stride == C) C = stride = R * C, R = 1;
  const int64_t threads = std::min(kMostThreads, ceil_div(ceil_div(C, N), kWarp) * kWarp);
  const int64_t parts = ceil_div(C, N * threads);
  const bool vectors = aligned && (R == 1 || (C % N == 0 && stride % N == 0));
  f(LaunchShape{R * parts, threads, 0, stream}, Rows{R, C, stride, static_cast<unsigned>(parts), vectors});
}

}  // namespace

template <>
void swiglu(ThisBackend, const Swiglu& a, Stream stream) {
  if (a.R == 0 || a.C == 0) return;
  with_float(a.dtype, [&]<class T>(Type<T>) {
    with_rows<T>(a.R, a.C, a.stride, aligned(a.gate, a.up, a.y), stream,
                 [&](const LaunchShape& shape, const Rows& rows) {
                   launch("swiglu", swiglu_kernel<T>, shape, a.gate, a.up, a.y, rows);
                 });
  });
}

template <>
void swiglu_backward(ThisBackend, const SwigluBackward& a, Stream stream) {
  if (a.R == 0 || a.C == 0) return;
  with_float(a.dtype, [&]<class T>(Type<T>) {
    with_rows<T>(a.R, a.C, a.stride, aligned(a.gate, a.up, a.dy, a.dgate, a.dup, a.y), stream,
                 [&](const LaunchShape& shape, const Rows& rows) {
                   launch("swiglu_backward", swiglu_backward_kernel<T>, shape, a.gate, a.up, a.dy, a.dgate, a.dup, a.y,
                          rows);
                 });
  });
}

}  // namespace nanovlm::kernels
