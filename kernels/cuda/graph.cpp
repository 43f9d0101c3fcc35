#include "kernels/cuda/graph.h"

#include "kernels/cuda/check.h"

namespace nanovlm::cuda {

Graph::Graph(Gpu& gpu, const std::function<void()>& work) : gpu_(gpu) {
  if (gpu.waits_for_launches())
    throw std::runtime_error("device cuda: NANOVLM_DEBUG=2 waits for every launch, so none can be recorded");
  const cudaStream_t stream = gpu.compute_stream();
  // Other threads of the program may go on calling CUDA meanwhile.
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "recording launches");
  cudaGraph_t graph = nullptr;
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream, &graph);
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();  // or the next launch would take it for its own
    throw;
  }
  check(cudaStreamEndCapture(stream, &graph), "recording launches");
  cudaError_t error = cudaGraphGetNodes(graph, nullptr, &count_);
  if (error == cudaSuccess) error = cudaGraphInstantiate(&launches_, graph, 0);
  cudaGraphDestroy(graph);
  check(error, "recording " + std::to_string(count_) + " launches");
}

Graph::~Graph() {
  cudaStreamSynchronize(gpu_.compute_stream());  // it may still be running
  cudaGraphExecDestroy(launches_);
}

void Graph::replay() {
  check(cudaGraphLaunch(launches_, gpu_.compute_stream()), "starting " + std::to_string(count_) + " launches");
  gpu_.replayed(count_);
}

}  // namespace nanovlm::cuda
