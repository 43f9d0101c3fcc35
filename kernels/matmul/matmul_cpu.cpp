// Matrix products on the host, in two ways by what bounds them:
//
// - A few rows against a b stored transposed, as in a token's step through the model: memory bounds it. Our own kernel
//   reads b once and in order; an entry of c is one dot product over k.
// - Everything else: arithmetic bounds it, and the libraries (kernels/matmul_library.h) come near the processor's peak.
//
// The sum of columns reads x once, a band of columns at a time. Memory bounds it too.
#include "kernels/matmul/matmul.h"

#include <type_traits>

#include "kernels/cpu_math.h"
#include "kernels/cpu_scratch.h"
#include "kernels/matmul_library.h"

namespace nanovlm::kernels {
namespace {

// With more rows than this the libraries are ahead.
constexpr int64_t kFewRows = 4;
// The floats of one vector register.
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
using Lanes [[gnu::vector_size(kLanes * sizeof(float)), gnu::aligned(4), gnu::may_alias]] = float;
using Words [[gnu::vector_size(kLanes * sizeof(uint32_t))]] = uint32_t;
using HalfWords [[gnu::vector_size(kLanes * sizeof(uint16_t)), gnu::aligned(2), gnu::may_alias]] = uint16_t;

void load(const float* x, Lanes& y) { y = *reinterpret_cast<const Lanes*>(x); }
void load(const bf16* x, Lanes& y) {
  const Words words = __builtin_convertvector(*reinterpret_cast<const HalfWords*>(x), Words) << 16;
  y = reinterpret_cast<const Lanes&>(words);
}

// sum[m] = x[m, :] . b for M rows of x. The order of the additions depends on K and M alone.
template <int M, class T>
void dot_products(const float* x, const T* b, int64_t K, float* sum) {
  constexpr int kUnroll = M == 1 ? 4 : 2;  // independent sums enough to hide the latency of an addition
  Lanes part[M][kUnroll] = {};
  int64_t k = 0;
  for (; k + kUnroll * kLanes <= K; k += kUnroll * kLanes)
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; ++u) {
      Lanes right;
      load(b + k + u * kLanes, right);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        Lanes left;
        load(x + m * K + k + u * kLanes, left);
        part[m][u] += left * right;
      }
    }
  for (int m = 0; m < M; ++m) {
    for (int u = 1; u < kUnroll; ++u) part[m][0] += part[m][u];
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int i = 0; i < kLanes; ++i) total += part[m][0][i];
    for (int64_t i = k; i < K; ++i) total += x[m * K + i] * static_cast<float>(b[i]);
    sum[m] = total;
  }
}

// The same for 1 <= M <= kFewRows known at run time.
template <int M = kFewRows, class T>
void dot_products(int64_t rows, const float* x, const T* b, int64_t K, float* sum) {
  if constexpr (M > 1)
    if (rows < M) return dot_products<M - 1>(rows, x, b, K, sum);
  dot_products<M>(x, b, K, sum);
}

template <class In, class Out>
void few_rows(const Matmul& a, const float* x) {
  parallel_rows(a.N, a.K, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      float sum[kFewRows];
      dot_products(a.M, x, as<In>(a.b) + n * a.K, a.K, sum);
      for (int64_t m = 0; m < a.M; ++m) {
        Out& c = as<Out>(a.c)[m * a.N + n];
        const float biased = a.bias ? sum[m] + a.bias[n] : sum[m];
        c = Out(a.accumulate ? biased + static_cast<float>(c) : biased);
      }
    }
  });
}

template <class In>
void few_rows(const Matmul& a) {
  const Floats converted(a.M * a.K);
  for (int64_t i = 0; i < a.M * a.K; ++i) converted[i] = static_cast<float>(as<In>(a.a)[i]);
  with_float(a.out, [&]<class Out>(Type<Out>) { few_rows<In, Out>(a, converted); });
}

// What is left of a product over no terms.
void no_terms(const Matmul& a) {
  with_float(a.out, [&]<class Out>(Type<Out>) {
    for (int64_t i = 0; i < a.M * a.N; ++i) {
      const float bias = a.bias ? a.bias[i % a.N] : 0;
      as<Out>(a.c)[i] = Out(a.accumulate ? bias + static_cast<float>(as<Out>(a.c)[i]) : bias);
    }
  });
}

// Columns summed together: their sums stay in registers or the first-level cache.
constexpr int64_t kBand = 64;

template <class T>
void sum_band(const T* x, float* y, int64_t R, int64_t N, int64_t width) {
  float sum[kBand] = {};
  for (int64_t r = 0; r < R; ++r)
    for (int64_t n = 0; n < width; ++n) sum[n] += static_cast<float>(x[r * N + n]);
  for (int64_t n = 0; n < width; ++n) y[n] += sum[n];
}

}  // namespace

template <>
void matmul(ThisBackend, const Matmul& a, Stream) {
  if (a.M == 0 || a.N == 0) return;
  if (a.K == 0) return no_terms(a);
  if (a.M > kFewRows || a.transpose_a || !a.transpose_b)
    return library_matmul(a, std::is_same_v<ThisBackend, CpuAvx512>);
  with_float(a.in, [&]<class In>(Type<In>) { few_rows<In>(a); });
}

template <>
void column_sum(ThisBackend, const ColumnSum& a, Stream) {
  with_float(a.dtype, [&]<class T>(Type<T>) {
    parallel_rows(ceil_div(a.N, kBand), a.R * kBand, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin * kBand; n < end * kBand && n < a.N; n += kBand) {
        const T* x = as<T>(a.x) + n;
        // A constant width lets the compiler keep the sums in registers.
        if (n + kBand <= a.N) {
          sum_band(x, a.y + n, a.R, a.N, kBand);
        } else {
          sum_band(x, a.y + n, a.R, a.N, a.N - n);
        }
      }
    });
  });
}

}  // namespace nanovlm::kernels
