// Runs every wrapper of the CUDA vocabulary on this machine's GPU and writes inputs and outputs as JSON. The file, once
// committed, lets tests compare the host twins with real hardware:
//
//     record_golden > tests/fixtures/ptx/golden.json
#include <cstdio>
#include <exception>

#include "tests/simt_kernels/golden.cuh"

using namespace nanovlm;

namespace {

using Words = std::vector<uint32_t>;

void print_words(const char* name, const Words& words) {
  std::printf("\"%s\": [", name);
  for (size_t i = 0; i < words.size(); ++i) std::printf(i ? ", %u" : "%u", words[i]);
  std::printf("]");
}

Words run(cuda::Gpu& gpu, const kernels::GoldenCase& c, const Words& input) {
  Words output(static_cast<size_t>(32 * c.words_out));
  kernels::Scratch in(c.name, gpu.stream(), static_cast<int64_t>(input.size() * sizeof(uint32_t)));
  kernels::Scratch out(c.name, gpu.stream(), static_cast<int64_t>(output.size() * sizeof(uint32_t)));
  gpu.upload(in.floats(), input.data(), input.size() * sizeof(uint32_t));
  kernels::launch(c.name, c.kernel, {1, 32, 0, gpu.stream()}, static_cast<void*>(in.floats()),
                  static_cast<void*>(out.floats()));
  gpu.download(output.data(), out.floats(), output.size() * sizeof(uint32_t));
  return output;
}

void record() {
  cuda::Gpu gpu({.synchronous = true});
  std::printf("{\"device\": \"%s\", \"cases\": {\n", gpu.name().c_str());
  bool first = true;
  for (const kernels::GoldenCase& c : kernels::golden_cases()) {
    const Words input = kernels::golden_input(c);
    std::printf("%s  \"%s\": {", first ? "" : ",\n", c.name);
    print_words("in", input);
    std::printf(", ");
    print_words("out", run(gpu, c, input));
    std::printf("}");
    first = false;
  }
  std::printf("\n}}\n");
}

}  // namespace

int main() {
  try {
    record();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "record_golden: %s\n", error.what());
    return 1;
  }
  return 0;
}
