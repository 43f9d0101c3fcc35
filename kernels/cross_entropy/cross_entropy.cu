// Cross entropy on a GPU: a block a row. Each thread keeps the maximum of what it has seen and the sum of exponentials
// relative to it; the block joins them; a second sweep writes the gradient. Blocks are as large as they may be, so that
// few rows are under way at a time: 264 of 49152 logits are 52 MB, which an H100's L2 cache (50 MB) all but holds for
// the second sweep. fp32 arithmetic; two exp an element. Bound by memory.
#include "kernels/cross_entropy/cross_entropy.h"

#include "kernels/cross_entropy/finite.cuh"
#include "kernels/elements.cuh"

namespace nanovlm::kernels {
namespace {

constexpr int kThreads = 1024;

template <class T>
__global__ void cross_entropy_kernel(const CrossEntropy a, bool vectors) {
  constexpr int kWidth = 4;
  const int64_t row = blockIdx.x;
  const float* x = a.logits + row * a.V;
  const int target = a.targets[row];
  const float at_target = x[target];  // read before the gradient may replace it

  float max = -INFINITY, sum = 0;
  for_elements<kWidth>(a.V, vectors, threadIdx.x, kThreads, [&]<int W>(Width<W>, int64_t v) {
    const Vec<float, W> logits = load_floats<W>(x + v);
    float larger = max;
    for (int j = 0; j < W; ++j) larger = fmaxf(larger, logits[j]);
    const float shift = finite(larger);
    sum *= expf(max - shift);
    for (int j = 0; j < W; ++j) sum += expf(logits[j] - shift);
    max = larger;
  });
  const float row_max = block_max(max), shift = finite(row_max);
  const float row_sum = block_sum(sum * expf(max - shift));
  if (threadIdx.x == 0) a.loss[row] = row_max + logf(row_sum) - at_target;

  if (!a.dlogits) return;
  T* dx = static_cast<T*>(a.dlogits) + row * a.V;
  const float inverse = 1 / row_sum;
  for_elements<kWidth>(a.V, vectors, threadIdx.x, kThreads, [&]<int W>(Width<W>, int64_t v) {
    Vec<float, W> slope = load_floats<W>(x + v);
    for (int j = 0; j < W; ++j) slope[j] = a.scale * (expf(slope[j] - shift) * inverse - (v + j == target ? 1.0f : 0));
    store_floats<W>(dx + v, slope);
  });
}

}  // namespace

template <>
void cross_entropy(ThisBackend, const CrossEntropy& a, Stream stream) {
  if (a.R == 0) return;
  with_float(a.dtype, [&]<class T>(Type<T>) {
    launch("cross_entropy", cross_entropy_kernel<T>, {a.R, kThreads, 0, stream}, a,
           a.V % 4 == 0 && aligned(a.logits, a.dlogits));
  });
}

}  // namespace nanovlm::kernels
