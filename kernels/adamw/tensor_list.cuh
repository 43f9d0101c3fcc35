// Many tensors in one launch: a block works on one chunk of one of them.
//
// The list travels in the launch's arguments. A CUDA graph keeps those by value, so its launches always have the
// addresses that they were recorded with, and nothing has to be put on the device ahead of a step. Arguments hold 4 KB
// on every GPU and driver: a longer list takes several launches.
#pragma once
#include <algorithm>

#include "kernels/device.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

// Tensor has a field n, its number of elements.
template <class Tensor>
struct TensorList {
  static constexpr int64_t kBytes = 4096 - 64;  // the rest is for what else a kernel takes
  static constexpr int kMost = kBytes / (sizeof(Tensor) + sizeof(int));

  Tensor tensors[kMost];
  int first_block[kMost];
  int count;
};

// Elements [first, first + n) of a tensor.
template <class Tensor>
struct Chunk {
  Tensor tensor;
  int64_t first, n;
};

// What this block works on. The last tensor whose first block is not beyond it: an empty one has the next one's.
template <int64_t kChunk, class Tensor>
__device__ Chunk<Tensor> chunk_of_block(const TensorList<Tensor>& list) {
  const int block = static_cast<int>(blockIdx.x);
  int at = 0;
  for (int beyond = list.count; beyond - at > 1;) {
    const int middle = (at + beyond) / 2;
    if (list.first_block[middle] <= block)
      at = middle;
    else
      beyond = middle;
  }
  const Tensor tensor = list.tensors[at];
  const int64_t first = (block - list.first_block[at]) * kChunk;
  return {tensor, first, min(kChunk, tensor.n - first)};
}

// Calls f(list, blocks) for as many lists as `count` tensors fill; blocks > 0.
template <int64_t kChunk, class Tensor, class F>
void for_each_list(const Tensor* tensors, int64_t count, const F& f) {
  using List = TensorList<Tensor>;
  for (int64_t begin = 0; begin < count; begin += List::kMost) {
    List list{};
    int64_t blocks = 0;
    for (; list.count < std::min<int64_t>(count - begin, List::kMost); ++list.count) {
      const Tensor& tensor = tensors[begin + list.count];
      list.tensors[list.count] = tensor;
      list.first_block[list.count] = kernel_argument<int>("first_block", blocks);
      blocks += ceil_div(tensor.n, kChunk);
    }
    if (blocks > 0) f(list, blocks);
  }
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
