// Elementwise arithmetic on a CPU: bound by memory.
#include "kernels/elementwise/elementwise.h"

#include "kernels/cpu_math.h"
#include "kernels/cpu_sum.h"

namespace nanovlm::kernels {
namespace {

template <class In, class Out>
void cast_range(const In* x, Out* y, int64_t begin, int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) store(y[i], static_cast<float>(x[i]));
}

template <class A, class B, class Y>
void add_range(const A* a, const B* b, Y* y, int64_t begin, int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) store(y[i], static_cast<float>(a[i]) + static_cast<float>(b[i]));
}

template <class T>
void scale_range(const T* x, T* y, float factor, int64_t begin, int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) store(y[i], static_cast<float>(x[i]) * factor);
}

template <class T>
void fill_range(T* y, float value, int64_t begin, int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) store(y[i], value);
}

void unit_range_of(const uint8_t* x, float* y, int64_t begin, int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) y[i] = static_cast<float>(x[i]) / 255.0f;
}

}  // namespace

template <>
void unit_range(ThisBackend, const UnitRange& a, Stream) {
  parallel_elements(a.n, [&](int64_t begin, int64_t end) { unit_range_of(a.x, a.y, begin, end); });
}

template <>
void cast(ThisBackend, const Cast& a, Stream) {
  with_float(a.in, [&]<class In>(Type<In>) {
    with_float(a.out, [&]<class Out>(Type<Out>) {
      parallel_elements(a.n, [&](int64_t begin, int64_t end) { cast_range(as<In>(a.x), as<Out>(a.y), begin, end); });
    });
  });
}

template <>
void add(ThisBackend, const Add& a, Stream) {
  with_float(a.a_dtype, [&]<class A>(Type<A>) {
    with_float(a.b_dtype, [&]<class B>(Type<B>) {
      with_float(a.y_dtype, [&]<class Y>(Type<Y>) {
        parallel_elements(
            a.n, [&](int64_t begin, int64_t end) { add_range(as<A>(a.a), as<B>(a.b), as<Y>(a.y), begin, end); });
      });
    });
  });
}

template <>
void scale(ThisBackend, const Scale& a, Stream) {
  const float factor = a.device_factor ? a.factor * *a.device_factor : a.factor;
  with_float(a.dtype, [&]<class T>(Type<T>) {
    parallel_elements(a.n,
                      [&](int64_t begin, int64_t end) { scale_range(as<T>(a.x), as<T>(a.y), factor, begin, end); });
  });
}

template <>
void sum(ThisBackend, const Sum& a, Stream) {
  const double sum = sum_of_chunks(ceil_div(a.n, kSumChunk), [&](int64_t begin, int64_t end, double* sums) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * kSumChunk, left = a.n - first;
      *sums++ = sum_chunk<false>(a.x + first, left < kSumChunk ? left : kSumChunk);
    }
  });
  *a.y = static_cast<float>(sum);
}

template <>
void fill(ThisBackend, const Fill& a, Stream) {
  with_float(a.dtype, [&]<class T>(Type<T>) {
    parallel_elements(a.n, [&](int64_t begin, int64_t end) { fill_range(as<T>(a.y), a.value, begin, end); });
  });
}

}  // namespace nanovlm::kernels
