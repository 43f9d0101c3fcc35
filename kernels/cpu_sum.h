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

constexpr int64_t kSumChunk = kGrain;

// f(begin, end, sums) writes the sums of chunks [begin, end) from `sums` on.
template <class F>
double sum_of_chunks(int64_t chunks, const F& f) {
  constexpr int64_t kAtOnce = 512;
  double total = 0;
  for (int64_t first = 0; first < chunks; first += kAtOnce) {
    const int64_t count = chunks - first < kAtOnce ? chunks - first : kAtOnce;
    double sums[kAtOnce];
    parallel_for(count, 1, [&](int64_t begin, int64_t end) { f(first + begin, first + end, sums + begin); });
    for (int64_t i = 0; i < count; ++i) total += sums[i];
  }
  return total;
}

}  // namespace
}  // namespace nanovlm::kernels
