// Runs every wrapper of the CUDA vocabulary on this machine's GPU and writes inputs and outputs as JSON. The file, once
// committed, lets tests compare the host twins with real hardware:
//
//     record_golden > tests/fixtures/ptx/golden.json
#include <cstdio>
#include <exception>

#include "tests/simt_kernels/golden_hopper.cuh"

using namespace nanovlm;

namespace {

using Words = std::vector<uint32_t>;
using kernels::LaunchShape;

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

// A kernel for Hopper GPUs, launched by `launch(out)`.
template <class Launch>
Words run_hopper(cuda::Gpu& gpu, const char* name, int words_out, const Launch& launch) {
  Words output(static_cast<size_t>(words_out));
  kernels::Scratch out(name, gpu.stream(), static_cast<int64_t>(output.size() * sizeof(uint32_t)));
  launch(LaunchShape{1, kernels::kGoldenThreads, kernels::kGoldenHopperShared, gpu.stream()},
         reinterpret_cast<uint32_t*>(out.floats()));
  gpu.download(output.data(), out.floats(), output.size() * sizeof(uint32_t));
  return output;
}

// A matrix of bf16 on the GPU.
class Matrix {
 public:
  Matrix(cuda::Gpu& gpu, const std::vector<bf16>& values)
      : memory_("matrix", gpu.stream(), static_cast<int64_t>(values.size() * sizeof(bf16))) {
    gpu.upload(memory_.floats(), values.data(), values.size() * sizeof(bf16));
  }
  const bf16* data() { return reinterpret_cast<const bf16*>(memory_.floats()); }

 private:
  kernels::Scratch memory_;
};

void record_hopper(cuda::Gpu& gpu) {
  const kernels::GoldenBox& box = kernels::kGoldenBox;
  Matrix numbers(gpu, kernels::golden_numbers(box.rows * box.columns));
  std::printf(",\n  ");
  print_words("copy_box", run_hopper(gpu, "copy_box", 64 * 32, [&](const LaunchShape& shape, uint32_t* out) {
                kernels::launch(
                    "copy_box", kernels::golden_copy_box, shape,
                    kernels::tensor_map("copy_box", numbers.data(), box.rows, box.columns, kernels::kGoldenRows), out,
                    box.row, box.column);
              }));
  Matrix a(gpu, kernels::golden_matrix(1)), b(gpu, kernels::golden_matrix(2));
  for (const kernels::GoldenProduct& p : kernels::golden_products()) {
    std::printf(",\n  ");
    print_words(p.name, run_hopper(gpu, p.name, p.words_out(), [&](const LaunchShape& shape, uint32_t* out) {
                  kernels::launch(p.name, p.kernel, shape, kernels::golden_map_of_a(p, a.data()),
                                  kernels::golden_map_of_b(p, b.data()), a.data(), out);
                }));
  }
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
  if (kernels::hopper()) record_hopper(gpu);
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
