// A CUDA graph of the launches that some work makes on a GPU's compute stream.
#pragma once
#include <functional>

#include "kernels/cuda/gpu.h"

struct CUgraphExec_st;  // the CUDA runtime's cudaGraphExec_t points to it

namespace nanovlm::cuda {

class Graph {
 public:
  // Calls `work`, whose launches are recorded and not run. Whatever may not happen meanwhile (taking memory, waiting,
  // copying to the host) is refused by the runtime library and throws; nothing is left recording then.
  Graph(Gpu& gpu, const std::function<void()>& work);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Starts all of them, in the order of the compute stream.
  void replay();

 private:
  Gpu& gpu_;
  CUgraphExec_st* launches_ = nullptr;
  size_t count_ = 0;
};

}  // namespace nanovlm::cuda
