// The plainest form of some operations on a CPU: a loop over entries (kernels/naive/entries.h), shared among threads.
#include "kernels/naive/entries.h"
#include "kernels/parallel.h"

namespace nanovlm::kernels {
namespace {

constexpr auto kOnThreads = [](const char*, int64_t n, const auto& f) {
  parallel_for(n, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i);
  });
};

}  // namespace

template <>
void naive_adamw(ThisBackend, const AdamW& a, Stream) {
  naive_adamw_by(a, kOnThreads);
}
template <>
void naive_patch_embedding(ThisBackend, const PatchEmbedding& a, Stream) {
  naive_patch_embedding_by(a, kOnThreads);
}
template <>
void naive_patch_embedding_backward(ThisBackend, const PatchEmbeddingBackward& a, Stream) {
  naive_patch_embedding_backward_by(a, kOnThreads);
}
template <>
void naive_attention(ThisBackend, const NaiveAttention& n, Stream) {
  naive_attention_by(n, kOnThreads);
}
template <>
void naive_attention_backward(ThisBackend, const NaiveAttentionBackward& n, Stream) {
  naive_attention_backward_by(n, kOnThreads);
}

}  // namespace nanovlm::kernels
