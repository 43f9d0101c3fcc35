// Errors of the CUDA runtime library as exceptions.
#pragma once
#include <stdexcept>
#include <string>

#include <cuda_runtime_api.h>

namespace nanovlm::cuda {

inline void check(cudaError_t error, const std::string& what) {
  if (error != cudaSuccess) throw std::runtime_error(what + ": CUDA says: " + cudaGetErrorString(error));
}

}  // namespace nanovlm::cuda
