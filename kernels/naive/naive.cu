// The plainest form of some operations on a GPU: a thread an entry (kernels/naive/entries.h), blocks of 256. Bound by
// whatever tiles would have spared: mostly the L2 cache, from which every operand comes again for every entry.
#include "kernels/naive/naive.h"

#include "kernels/device.cuh"
#include "kernels/naive/entries.h"

namespace nanovlm::kernels {
namespace {

constexpr int kThreads = 256;

template <class F>
__global__ void naive_kernel(const F f, int64_t n) {
  if (const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n) f(i);
}

auto on_stream(Stream stream) {
  return [stream]<class F>(const char* name, int64_t n, const F& f) {
    if (n > 0) launch(name, naive_kernel<F>, {ceil_div(n, kThreads), kThreads, 0, stream}, f, n);
  };
}

}  // namespace

template <>
void naive_adamw(ThisBackend, const AdamW& a, Stream stream) {
  naive_adamw_by(a, on_stream(stream));
}
template <>
void naive_patch_embedding(ThisBackend, const PatchEmbedding& a, Stream stream) {
  naive_patch_embedding_by(a, on_stream(stream));
}
template <>
void naive_patch_embedding_backward(ThisBackend, const PatchEmbeddingBackward& a, Stream stream) {
  naive_patch_embedding_backward_by(a, on_stream(stream));
}
template <>
void naive_attention(ThisBackend, const NaiveAttention& n, Stream stream) {
  naive_attention_by(n, on_stream(stream));
}
template <>
void naive_attention_backward(ThisBackend, const NaiveAttentionBackward& n, Stream stream) {
  naive_attention_backward_by(n, on_stream(stream));
}

}  // namespace nanovlm::kernels
