// Elementwise arithmetic on a GPU: a thread a vector of 16 bytes, fp32 arithmetic, rounded once on store. Bound by
// memory. The sum's chunks are in kernels/sum.cuh.
#include "kernels/elementwise/elementwise.h"

#include "kernels/elements.cuh"
#include "kernels/sum.cuh"

namespace nanovlm::kernels {
namespace {

template <class In, class Out>
__global__ void cast_kernel(const In* x, Out* y, int64_t n, bool vectors) {
  for_grid_elements<kVectorWidth<In, Out>>(
      n, vectors, [&]<int W>(Width<W>, int64_t i) { store_floats<W>(y + i, load_floats<W>(x + i)); });
}

template <class A, class B, class Y>
__global__ void add_kernel(const A* a, const B* b, Y* y, int64_t n, bool vectors) {
  for_grid_elements<kVectorWidth<A, B, Y>>(n, vectors, [&]<int W>(Width<W>, int64_t i) {
    Vec<float, W> sum = load_floats<W>(a + i);
    const Vec<float, W> other = load_floats<W>(b + i);
    for (int j = 0; j < W; ++j) sum[j] += other[j];
    store_floats<W>(y + i, sum);
  });
}

template <class T>
__global__ void scale_kernel(const T* x, T* y, int64_t n, bool vectors, float factor, const float* device_factor) {
  const float whole = device_factor ? factor * *device_factor : factor;
  for_grid_elements<kVectorWidth<T>>(n, vectors, [&]<int W>(Width<W>, int64_t i) {
    Vec<float, W> value = load_floats<W>(x + i);
    for (int j = 0; j < W; ++j) value[j] *= whole;
    store_floats<W>(y + i, value);
  });
}

template <class T>
__global__ void fill_kernel(T* y, int64_t n, bool vectors, float value) {
  for_grid_elements<kVectorWidth<T>>(n, vectors, [&]<int W>(Width<W>, int64_t i) {
    Vec<float, W> values;
    for (int j = 0; j < W; ++j) values[j] = value;
    store_floats<W>(y + i, values);
  });
}

// 4 bytes at a time: a warp's results are 512 bytes side by side.
__global__ void unit_range_kernel(const uint8_t* x, float* y, int64_t n, bool vectors) {
  for_grid_elements<4>(n, vectors, [&]<int W>(Width<W>, int64_t i) {
    if constexpr (W == 1) {
      y[i] = static_cast<float>(x[i]) / 255.0f;
    } else {
      const Vec<uint8_t, W> bytes = *reinterpret_cast<const Vec<uint8_t, W>*>(x + i);
      Vec<float, W> values;
      for (int j = 0; j < W; ++j) values[j] = static_cast<float>(bytes[j]) / 255.0f;
      st16(y + i, values);
    }
  });
}

// sums[b] = sum of chunk b of x
__global__ void chunk_sums_kernel(const float* x, double* sums, int64_t n) {
  const int64_t first = int64_t(blockIdx.x) * kSumChunk;
  const double sum = chunk_sum<false>(x + first, min(kSumChunk, n - first));
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void total_kernel(const double* sums, int64_t chunks, float* y) {
  const double sum = total_of(sums, chunks);
  if (threadIdx.x == 0) *y = static_cast<float>(sum);
}

}  // namespace

template <>
void unit_range(ThisBackend, const UnitRange& a, Stream stream) {
  if (a.n == 0) return;
  launch("unit_range", unit_range_kernel, elements_shape<4>(a.n, stream), a.x, a.y, a.n, aligned(a.x, a.y));
}

template <>
void cast(ThisBackend, const Cast& a, Stream stream) {
  if (a.n == 0) return;
  with_float(a.in, [&]<class In>(Type<In>) {
    with_float(a.out, [&]<class Out>(Type<Out>) {
      launch("cast", cast_kernel<In, Out>, elements_shape<kVectorWidth<In, Out>>(a.n, stream), a.x, a.y, a.n,
             aligned(a.x, a.y));
    });
  });
}

template <>
void add(ThisBackend, const Add& a, Stream stream) {
  if (a.n == 0) return;
  with_float(a.a_dtype, [&]<class A>(Type<A>) {
    with_float(a.b_dtype, [&]<class B>(Type<B>) {
      with_float(a.y_dtype, [&]<class Y>(Type<Y>) {
        launch("add", add_kernel<A, B, Y>, elements_shape<kVectorWidth<A, B, Y>>(a.n, stream), a.a, a.b, a.y, a.n,
               aligned(a.a, a.b, a.y));
      });
    });
  });
}

template <>
void scale(ThisBackend, const Scale& a, Stream stream) {
  if (a.n == 0) return;
  with_float(a.dtype, [&]<class T>(Type<T>) {
    launch("scale", scale_kernel<T>, elements_shape<kVectorWidth<T>>(a.n, stream), a.x, a.y, a.n, aligned(a.x, a.y),
           a.factor, a.device_factor);
  });
}

template <>
void sum(ThisBackend, const Sum& a, Stream stream) {
  const int64_t chunks = ceil_div(a.n, kSumChunk);
  Scratch scratch("sum", stream, std::max(chunks, int64_t{1}) * int64_t{sizeof(double)});
  void* const sums = scratch.floats();
  if (chunks > 0) launch("sum", chunk_sums_kernel, {chunks, kSumThreads, 0, stream}, a.x, sums, a.n);
  launch("total", total_kernel, {1, kSumThreads, 0, stream}, sums, chunks, a.y);
}

template <>
void fill(ThisBackend, const Fill& a, Stream stream) {
  if (a.n == 0) return;
  with_float(a.dtype, [&]<class T>(Type<T>) {
    launch("fill", fill_kernel<T>, elements_shape<kVectorWidth<T>>(a.n, stream), a.y, a.n, aligned(a.y), a.value);
  });
}

}  // namespace nanovlm::kernels
