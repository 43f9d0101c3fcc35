// AdamW and the gradients' norm on a GPU. A block takes a chunk of a tensor (tensor_list.cuh), a thread vectors of four
// neighbours. AdamW is one pass, bound by memory: 28 bytes a parameter, 30 with the copy. The norm reads 4: a chunk's
// squares are added in fp64, and one block adds the chunks' sums in the order of the tensors.
#include "kernels/adamw/adamw.h"

#include "kernels/adamw/tensor_list.cuh"
#include "kernels/elements.cuh"
#include "kernels/sum.cuh"

namespace nanovlm::kernels {
namespace {

constexpr int64_t kThreads = 256, kAdamWChunk = 4096;

__global__ void adamw_kernel(const TensorList<AdamWTensor> list, const float* factor, const float* only_if_finite) {
  if (only_if_finite && !(fabsf(*only_if_finite) < INFINITY)) return;
  const Chunk<AdamWTensor> chunk = chunk_of_block<kAdamWChunk>(list);
  const AdamWTensor& a = chunk.tensor;
  const float scale = factor ? *factor : 1.0f;
  const Vec<float, 4> first = load_floats<4>(&a.coefficients->decay), rest = load_floats<4>(&a.coefficients->step);
  const float decay = first[0], toward_gradient = first[1], beta2 = first[2], one_minus_beta2 = first[3];
  const float step = rest[0], root_correction = rest[1], eps = rest[2];
  const auto update = [&]<int W>(Width<W>, int64_t in_chunk) {
    const int64_t i = chunk.first + in_chunk;
    Vec<float, W> p = load_floats<W>(a.p + i), m = load_floats<W>(a.m + i), v = load_floats<W>(a.v + i);
    const Vec<float, W> g = load_floats<W>(a.g + i);
    for (int j = 0; j < W; ++j) {
      const float slope = g[j] * scale;
      m[j] += (slope - m[j]) * toward_gradient;
      v[j] = beta2 * v[j] + (one_minus_beta2 * slope) * slope;
      p[j] = p[j] * decay - step * m[j] / (sqrtf(v[j]) / root_correction + eps);
    }
    store_floats<W>(a.p + i, p);
    store_floats<W>(a.m + i, m);
    store_floats<W>(a.v + i, v);
    if (a.copy) store_floats<W>(a.copy + i, p);
  };
  for_elements<4>(chunk.n, aligned(a.p, a.m, a.v, a.g, a.copy), threadIdx.x, kThreads, update);
}

// sums[b] = sum of the squares of block b's chunk
__global__ void squares_kernel(const TensorList<Gradient> list, double* sums) {
  const Chunk<Gradient> chunk = chunk_of_block<kSumChunk>(list);
  const double sum = chunk_sum<true>(chunk.tensor.x + chunk.first, chunk.n);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void clip_scale_kernel(const double* sums, int64_t chunks, double max_norm, float* norm, float* scale) {
  const double root = sqrt(total_of(sums, chunks)), factor = max_norm / (root + 1e-6);
  if (threadIdx.x > 0) return;
  *norm = static_cast<float>(root);
  *scale = static_cast<float>(factor > 1 ? 1 : factor);
}

}  // namespace

template <>
void adamw(ThisBackend, const AdamW& a, Stream stream) {
  for_each_list<kAdamWChunk>(a.tensors, a.count, [&](const TensorList<AdamWTensor>& list, int64_t blocks) {
    launch("adamw", adamw_kernel, {blocks, kThreads, 0, stream}, list, a.scale, a.only_if_finite);
  });
}

template <>
void clip_scale(ThisBackend, const ClipScale& a, Stream stream) {
  int64_t chunks = 0;
  for (int64_t i = 0; i < a.count; ++i) chunks += ceil_div(a.gradients[i].n, kSumChunk);
  Scratch scratch("clip_scale", stream, std::max(chunks, int64_t{1}) * int64_t{sizeof(double)});
  void* const sums = scratch.floats();
  double* place = static_cast<double*>(sums);
  for_each_list<kSumChunk>(a.gradients, a.count, [&](const TensorList<Gradient>& list, int64_t blocks) {
    launch("sum_of_squares", squares_kernel, {blocks, kSumThreads, 0, stream}, list, place);
    place += blocks;
  });
  launch("clip_scale", clip_scale_kernel, {1, kSumThreads, 0, stream}, sums, chunks, a.max_norm, a.norm, a.scale);
}

}  // namespace nanovlm::kernels
