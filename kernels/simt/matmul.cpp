// Matrix products on the simt device: reference loops on the host, since on a GPU they are a library's. Operands are
// made fp32 and row-major first; each entry of c adds its products by rising k.
#include "kernels/matmul/matmul.h"

#include <algorithm>
#include <vector>

namespace nanovlm::kernels {
namespace {

constexpr int kRows = 4;           // of c, that share a pass over b
constexpr int64_t kColumns = 512;  // of c, whose sums stay in the L1 cache

// x[rows, columns], or x^T where x is stored as [columns, rows]
std::vector<float> row_major(const void* x, int64_t rows, int64_t columns, bool transposed, DType dtype) {
  std::vector<float> result(static_cast<size_t>(rows * columns));
  with_float(dtype, [&]<class T>(Type<T>) {
    const T* from = static_cast<const T*>(x);
    if (!transposed) {
      for (int64_t i = 0; i < rows * columns; ++i) result[i] = static_cast<float>(from[i]);
      return;
    }
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t column = 0; column < columns; ++column)
        result[row * columns + column] = static_cast<float>(from[column * rows + row]);
  });
  return result;
}

// sums[i][n] = row first + i of a, times column n0 + n of b. Rows past the last are the last again.
void multiply(const float* a, const float* b, int64_t first, int64_t n0, int64_t width, const Matmul& s,
              float (&sums)[kRows][kColumns]) {
  const float* row[kRows];
  for (int i = 0; i < kRows; ++i) row[i] = a + std::min(first + i, s.M - 1) * s.K;
  for (auto& line : sums) std::fill(line, line + width, 0.0f);
  for (int64_t k = 0; k < s.K; ++k) {
    const float* line = b + k * s.N + n0;
    const float a0 = row[0][k], a1 = row[1][k], a2 = row[2][k], a3 = row[3][k];
    for (int64_t n = 0; n < width; ++n) {
      sums[0][n] += a0 * line[n];
      sums[1][n] += a1 * line[n];
      sums[2][n] += a2 * line[n];
      sums[3][n] += a3 * line[n];
    }
  }
}

}  // namespace

template <>
void matmul(Simt, const Matmul& s, Stream) {
  const std::vector<float> a = row_major(s.a, s.M, s.K, s.transpose_a, s.in);
  const std::vector<float> b = row_major(s.b, s.K, s.N, s.transpose_b, s.in);
  float sums[kRows][kColumns];
  with_float(s.out, [&]<class T>(Type<T>) {
    T* c = static_cast<T*>(s.c);
    for (int64_t n0 = 0; n0 < s.N; n0 += kColumns)
      for (int64_t first = 0; first < s.M; first += kRows) {
        const int64_t width = std::min(kColumns, s.N - n0), rows = std::min<int64_t>(kRows, s.M - first);
        multiply(a.data(), b.data(), first, n0, width, s, sums);
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t n = 0; n < width; ++n) {
            T& entry = c[(first + i) * s.N + n0 + n];
            float value = sums[i][n];
            if (s.bias) value += static_cast<float>(static_cast<const T*>(s.bias)[n0 + n]);
            if (s.accumulate) value += static_cast<float>(entry);
            entry = T(value);
          }
      }
  });
}

template <>
void matmul_each(Simt backend, const std::vector<Matmul>& products, Stream stream) {
  for (const Matmul& a : products) matmul(backend, a, stream);
}

}  // namespace nanovlm::kernels
