// The rules for kernel code that can be seen in its text (docs/add-a-kernel.md); the executor finds the others.
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "tests/support/catch.h"

namespace nanovlm::testing {
namespace {

namespace fs = std::filesystem;

struct Rule {
  std::regex pattern;
  std::string instead;
  std::vector<std::string> broken_by;
};

const Rule kRules[] = {
    {std::regex("<<<"), "launch(...)", {"kernel<<<1, 32>>>(x);"}},
    {std::regex("\\b(asm|__asm__)\\b"),
     "a wrapper in kernels/cuda/ptx.cuh with its twin",
     {"asm volatile(\"\");", "__asm__(\"\");"}},
    {std::regex("__shared__"),
     "GPU_SHARED or GPU_SHARED_DYNAMIC",
     {"  __shared__ float tile[32];", "extern __shared__ float tile[];"}},
    {std::regex("__constant__"), "an argument by value", {"__constant__ float table[8];"}},
    {std::regex("__activemask"), "the full mask in uniform control flow", {"__shfl_sync(__activemask(), x, 0)"}},
    {std::regex("cooperative_groups|\\bcg::|grid_group|this_grid|this_thread_block"),
     "kernels that follow each other",
     {"#include <cooperative_groups.h>", "cg::grid_group grid;", "const auto all = cg::this_grid();",
      "auto block = this_thread_block();"}},
    {std::regex("\\b(tex|surf)([123]D|Cubemap)|cuda(Texture|Surface)Object_t|\\btexture<"),
     "loads from memory",
     {"x = tex2D<float>(picture, u, v);", "cudaTextureObject_t picture;", "tex1Dfetch<float>(t, i)",
      "surf2Dwrite(x, out, u, v);", "texture<float, 2> picture;"}},
    {std::regex("(^|[^\\]])\\]\\s*(__host__|__device__|NANOVLM_HOST_DEVICE)"),
     "a struct with a call operator",
     {"const auto f = [=] __device__(int i) { return i; };", "[=] __host__ __device__ {}", "[x]__device__(int i) {}",
      "[&] NANOVLM_HOST_DEVICE(int i) {}"}},
    {std::regex("\\bprintf\\b"), "a test on the simt device", {"printf(\"%d\", i);"}},
    {std::regex("cuda_bf16\\.h|__nv_bfloat16"),
     "bf16 of kernels/types.h",
     {"#include <cuda_bf16.h>", "__nv_bfloat16 x;"}},
};

// The files that implement the vocabulary.
const std::set<std::string> kVocabulary = {"kernels/cuda/words.cuh", "kernels/cuda/ptx.cuh", "kernels/cuda/hopper.cuh"};

const fs::path kRoot = fs::path(NANOVLM_FIXTURES).parent_path().parent_path();

// Kernel files, and headers that they may share with the host: all but those of the executor, which no kernel sees, and
// of the vocabulary. By their paths from the root.
std::set<std::string> kernel_sources() {
  std::set<std::string> files;
  for (const char* folder : {"kernels", "tests/simt_kernels"})
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder)) {
      const std::string extension = entry.path().extension().string();
      const bool header = extension == ".h" && entry.path().parent_path().filename() != "simt";
      if (extension == ".cu" || extension == ".cuh" || header)
        files.insert(fs::relative(entry.path(), kRoot).generic_string());
    }
  for (const std::string& file : kVocabulary) REQUIRE(files.erase(file) == 1);
  return files;
}

// What the rules that a line breaks ask for instead.
std::vector<std::string> broken(const std::string& line) {
  const std::string code = line.substr(0, line.find("//"));
  std::vector<std::string> instead;
  for (const Rule& rule : kRules)
    if (std::regex_search(code, rule.pattern)) instead.push_back(rule.instead);
  return instead;
}

TEST_CASE("kernel files keep to the vocabulary") {
  for (const std::string& file : kernel_sources()) {
    std::ifstream in(kRoot / file);
    std::string line;
    int number = 0;
    while (std::getline(in, line)) {
      ++number;
      for (const std::string& instead : broken(line))
        FAIL_CHECK(file << ":" << number << ": " << line << "\nuse " << instead);
    }
    CHECK(number > 0);
  }
}

TEST_CASE("every rule finds what breaks it, and nothing else") {
  for (const Rule& rule : kRules)
    for (const std::string& line : rule.broken_by) {
      CAPTURE(line);
      CHECK(broken(line) == std::vector{rule.instead});
      CHECK(broken("// " + line).empty());
    }
  for (const char* line :
       {"launch(\"norm\", norm_kernel<T>, {grid, block, 0, stream}, a);", "GPU_SHARED(float, tile, [32][33]);",
        "const auto load = [&](int64_t c) { return x[c]; };", "__device__ inline float sum(const float (&x)[4]) {",
        "[[nodiscard]] __device__ float sum();", "float vertex2D, context;", "x << 3 << 2"}) {
    CAPTURE(line);
    CHECK(broken(line).empty());
  }
}

TEST_CASE("the rules are for kernels, their headers and those of tests") {
  const std::set<std::string> files = kernel_sources();
  for (const char* file : {"kernels/norm/norm.cu", "kernels/attention/rows.cuh", "kernels/types.h",
                           "kernels/norm/norm.h", "tests/simt_kernels/planted.cuh"})
    CHECK(files.count(file) == 1);
  CHECK(files.count("kernels/simt/words.h") == 0);
}

}  // namespace
}  // namespace nanovlm::testing
