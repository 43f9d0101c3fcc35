// Cross entropy on a CPU. Threads take rows. A row is read from memory once, for its maximum and the sum of its
// exponentials (block by block, the sum rescaled whenever the maximum grows), and again from the cache for the
// gradient. Two exp an element: between the memory bound and the arithmetic one.
#include "kernels/cross_entropy/cross_entropy.h"

#include "kernels/cpu_math.h"

namespace nanovlm::kernels {
namespace {

constexpr int64_t kBlock = 2048;  // 8 KB: the second look at a block finds it in L1

struct MaxSum {
  float max, sum;  // sum of exp(x - max)
};

MaxSum max_and_sum(const float* x, int64_t V) {
  MaxSum row{-INFINITY, 0};
  for (int64_t begin = 0; begin < V; begin += kBlock) {
    const int64_t end = begin + kBlock < V ? begin + kBlock : V;
    float max = row.max, sum = 0;
#pragma omp simd reduction(max : max)
    for (int64_t v = begin; v < end; ++v) max = x[v] > max ? x[v] : max;
    // Until a finite logit has been seen exp(x - max) is exp(-inf - -inf); any finite number in place of max gives 0.
    const float shift = max == -INFINITY ? 0 : max;
#pragma omp simd reduction(+ : sum)
    for (int64_t v = begin; v < end; ++v) sum += exp(x[v] - shift);
    row.sum = row.sum * exp(row.max - shift) + sum;
    row.max = max;
  }
  return row;
}

template <class T>
void gradient(const float* x, T* dx, int64_t V, MaxSum row, int32_t target, float scale) {
  const float inverse = 1 / row.sum;
  const float at_target = scale * (exp(x[target] - row.max) * inverse - 1);
#pragma omp simd
  for (int64_t v = 0; v < V; ++v) store(dx[v], scale * (exp(x[v] - row.max) * inverse));
  store(dx[target], at_target);
}

}  // namespace

template <>
void cross_entropy(ThisBackend, const CrossEntropy& a, Stream) {
  with_float(a.dtype, [&]<class T>(Type<T>) {
    parallel_rows(a.R, a.V, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const float* x = a.logits + r * a.V;
        const MaxSum row = max_and_sum(x, a.V);
        a.loss[r] = row.max + std::log(row.sum) - x[a.targets[r]];
        if (a.dlogits) gradient(x, as<T>(a.dlogits) + r * a.V, a.V, row, a.targets[r], a.scale);
      }
    });
  });
}

}  // namespace nanovlm::kernels
