// How the elements of an array are shared among threads: by vectors of neighbours, and a rest that fills none one by
// one. Neighbouring threads take neighbouring vectors.
#pragma once
#include <algorithm>

#include "kernels/device.cuh"

namespace nanovlm::kernels::inline NANOVLM_WORDS {

// How many elements a call of f handles: the argument's type says it.
template <int N>
struct Width {
  static constexpr int value = N;
};

// As many elements as one access of 16 bytes moves of the largest type: others move 8 bytes.
template <class... T>
constexpr int kVectorWidth = static_cast<int>(16 / std::max({sizeof(T)...}));

// Whether every pointer may be read by vectors; null ones are not read.
template <class... P>
NANOVLM_HOST_DEVICE bool aligned(const P*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

// Calls f(Width<N or 1>, first element) for what belongs to `thread`, one of `threads` that share n elements. Without
// `vectors` the width is always 1.
template <int N, class F>
__device__ void for_elements(int64_t n, bool vectors, int64_t thread, int64_t threads, const F& f) {
  const int64_t whole = vectors ? n / N * N : 0;
  if constexpr (N > 1)
    for (int64_t i = thread * N; i < whole; i += threads * N) f(Width<N>{}, i);
  for (int64_t i = whole + thread; i < n; i += threads) f(Width<1>{}, i);
}

// The same for all threads of a grid of one dimension.
template <int N, class F>
__device__ void for_grid_elements(int64_t n, bool vectors, const F& f) {
  for_elements<N>(n, vectors, int64_t(blockIdx.x) * blockDim.x + threadIdx.x, int64_t(gridDim.x) * blockDim.x, f);
}

// A grid with a thread a vector of n > 0 elements.
template <int N>
LaunchShape elements_shape(int64_t n, Stream stream) {
  constexpr int64_t kThreads = 256;
  return {ceil_div(n, N * kThreads), kThreads, 0, stream};
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
