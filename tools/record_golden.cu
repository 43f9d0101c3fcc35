// Runs every wrapper of the CUDA vocabulary on this machine's GPU and writes inputs and outputs as JSON. The file, once
// committed, lets tests compare the host twins with real hardware:
//
//     record_golden > tests/fixtures/ptx/golden.json
#include <cstdio>
#include <cstdlib>

#include "tests/simt_kernels/golden.cuh"

using namespace nanovlm;

namespace {

void require(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "record_golden: %s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

void print_words(const char* name, const std::vector<uint32_t>& words) {
  std::printf("\"%s\": [", name);
  for (size_t i = 0; i < words.size(); ++i) std::printf(i ? ", %u" : "%u", words[i]);
  std::printf("]");
}

std::vector<uint32_t> run(const kernels::GoldenCase& c, const std::vector<uint32_t>& input) {
  std::vector<uint32_t> output(static_cast<size_t>(32 * c.words_out));
  uint32_t *in = nullptr, *out = nullptr;
  require(cudaMalloc(&in, input.size() * sizeof(uint32_t)), "cudaMalloc");
  require(cudaMalloc(&out, output.size() * sizeof(uint32_t)), "cudaMalloc");
  require(cudaMemcpy(in, input.data(), input.size() * sizeof(uint32_t), cudaMemcpyHostToDevice), "cudaMemcpy");
  kernels::launch(c.name, c.kernel, {1, 32}, in, out);
  require(cudaMemcpy(output.data(), out, output.size() * sizeof(uint32_t), cudaMemcpyDeviceToHost), c.name);
  require(cudaFree(in), "cudaFree");
  require(cudaFree(out), "cudaFree");
  return output;
}

}  // namespace

int main() {
  cudaDeviceProp device{};
  require(cudaGetDeviceProperties(&device, 0), "no GPU");
  std::printf("{\"device\": \"%s\", \"compute_capability\": \"%d.%d\", \"cases\": {\n", device.name, device.major,
              device.minor);
  bool first = true;
  for (const kernels::GoldenCase& c : kernels::golden_cases()) {
    const std::vector<uint32_t> input = kernels::golden_input(c);
    std::printf("%s  \"%s\": {", first ? "" : ",\n", c.name);
    print_words("in", input);
    std::printf(", ");
    print_words("out", run(c, input));
    std::printf("}");
    first = false;
  }
  std::printf("\n}}\n");
  return 0;
}
