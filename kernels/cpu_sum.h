// Sums over all elements on a CPU, the same to the bit for any number of threads: chunks of a fixed size are summed in
// fp64, and the chunks' sums are added in order. Internal linkage, as in cpu_math.h.
#pragma once
#include "kernels/cpu_math.h"

namespace nanovlm::kernels {
namespace {

template <bool kSquares>
double sum_chunk(const float* x, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const double value = x[i];
    sum += kSquares ? value * value : value;
  }
  return sum;
}

template <bool kSquares>
double sum_in_chunks(const float* x, int64_t n) {
  constexpr int64_t kChunk = kGrain, kChunks = 512;
  double total = 0;
  for (int64_t start = 0; start < n; start += kChunk * kChunks) {
    const int64_t rest = n - start, chunks = rest < kChunk * kChunks ? ceil_div(rest, kChunk) : kChunks;
    double sums[kChunks];
    parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t left = rest - i * kChunk;
        sums[i] = sum_chunk<kSquares>(x + start + i * kChunk, left < kChunk ? left : kChunk);
      }
    });
    for (int64_t i = 0; i < chunks; ++i) total += sums[i];
  }
  return total;
}

}  // namespace
}  // namespace nanovlm::kernels
