#include "bench/common/device_block.h"

#include <nlohmann/json.hpp>

#include "bench/common/clock.h"

#if defined(NANOVLM_CUDA_KERNELS)
#include "kernels/cuda/check.h"
#endif

namespace nanovlm::bench {
namespace {

#if defined(NANOVLM_CUDA_KERNELS)
// "13.0" of 13000
std::string version(cudaError_t (*of)(int*)) {
  int number = 0;
  cuda::check(of(&number), "bench: a version of CUDA");
  return std::to_string(number / 1000) + '.' + std::to_string(number % 1000 / 10);
}

void add_gpu(nlohmann::ordered_json& block) {
  int device = 0, multiprocessors = 0;
  cuda::check(cudaGetDevice(&device), "bench: the GPU's number");
  cuda::check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device),
              "bench: its multiprocessors");
  size_t free = 0, total = 0;
  cuda::check(cudaMemGetInfo(&free, &total), "bench: its memory");
  block["multiprocessors"] = multiprocessors;
  block["memory_bytes"] = total;
  block["cuda_driver"] = version(cudaDriverGetVersion);
  block["cuda_runtime"] = version(cudaRuntimeGetVersion);
}
#endif

const char* name_of(DeviceKind kind) {
  return kind == DeviceKind::cuda ? "cuda" : kind == DeviceKind::simt ? "simt" : "cpu";
}

}  // namespace

nlohmann::ordered_json device_block(const Device& device) {
  nlohmann::ordered_json block = {{"kind", name_of(device.kind())}, {"name", device.name()}};
  if (device.kind() != DeviceKind::simt) block["last_cache_bytes"] = Clock(device).cache_bytes();
#if defined(NANOVLM_CUDA_KERNELS)
  if (device.kind() == DeviceKind::cuda) add_gpu(block);
#endif
  return block;
}

}  // namespace nanovlm::bench
