// Matrix products on the host, in two ways by what bounds them:
//
// - A few rows against a b stored transposed, as in a token's step through the model: memory bounds it. Our own kernel
//   reads b once and in order; an entry of c is one dot product over k.
// - Everything else: arithmetic bounds it, and the libraries (kernels/matmul_library.h) come near the processor's peak.
//
// The sum of columns reads x once, a band of columns at a time. Memory bounds it too.
#include "kernels/matmul/matmul.h"

#include <algorithm>
#include <type_traits>

#include "kernels/cpu_math.h"
#include "kernels/cpu_scratch.h"
#include "kernels/matmul/dot_products.h"
#include "kernels/matmul_library.h"

namespace nanovlm::kernels {
namespace {

bool has_few_rows(const Matmul& a) { return a.M <= kFewRows && !a.transpose_a && a.transpose_b; }

// Columns [begin, end) of c, where x is a: in fp32, or as it is.
template <class In, class Out, class X>
void few_rows(const Matmul& a, const X* x, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; ++n) {
    float sum[kFewRows];
    dot_products(a.M, x, a.K, as<In>(a.b) + n * a.K, a.K, sum);
    for (int64_t m = 0; m < a.M; ++m) {
      Out& c = as<Out>(a.c)[m * a.N + n];
      const float biased = a.bias ? sum[m] + static_cast<float>(as<Out>(a.bias)[n]) : sum[m];
      c = Out(a.accumulate ? biased + static_cast<float>(c) : biased);
    }
  }
}

// The columns of all products, as if they stood side by side.
template <class In, class X>
void few_rows(const Matmul* products, size_t count, const X* x) {
  const Matmul& first = products[0];
  int64_t columns = 0;
  for (size_t i = 0; i < count; ++i) columns += products[i].N;
  parallel_rows(columns, first.K, [&](int64_t begin, int64_t end) {
    for (size_t i = 0; i < count; ++i) {
      const Matmul& a = products[i];
      with_float(a.out,
                 [&]<class Out>(Type<Out>) { few_rows<In, Out>(a, x, a.N * begin / columns, a.N * end / columns); });
    }
  });
}

template <class In>
void few_rows(const Matmul* products, size_t count) {
  const Matmul& first = products[0];
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<In, bf16>)
    if (has_bf16_products()) return few_rows<In>(products, count, as<In>(first.a));
#endif
  const Floats x(first.M * first.K);
  for (int64_t i = 0; i < first.M * first.K; ++i) x[i] = static_cast<float>(as<In>(first.a)[i]);
  few_rows<In, float>(products, count, x);
}

// What is left of a product over no terms.
void no_terms(const Matmul& a) {
  with_float(a.out, [&]<class Out>(Type<Out>) {
    for (int64_t i = 0; i < a.M * a.N; ++i) {
      const float bias = a.bias ? static_cast<float>(as<Out>(a.bias)[i % a.N]) : 0;
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
  // With more rows the libraries are ahead.
  if (!has_few_rows(a)) return library_matmul(a, std::is_same_v<ThisBackend, CpuAvx512>);
  with_float(a.in, [&]<class In>(Type<In>) { few_rows<In>(&a, 1); });
}

template <>
void matmul_each(ThisBackend backend, const std::vector<Matmul>& products, Stream stream) {
  const bool together = std::all_of(products.begin(), products.end(),
                                    [](const Matmul& a) { return has_few_rows(a) && a.M > 0 && a.K > 0; });
  if (!together || products.empty()) {
    for (const Matmul& a : products) matmul(backend, a, stream);
    return;
  }
  with_float(products[0].in, [&]<class In>(Type<In>) { few_rows<In>(products.data(), products.size()); });
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
