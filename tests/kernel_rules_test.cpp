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
};

// The files that implement the vocabulary.
const std::set<std::string> kVocabulary = {"kernels/cuda/words.cuh", "kernels/cuda/ptx.cuh", "kernels/cuda/hopper.cuh"};

// Kernel files, and headers that they may share with the host: all but those of the executor, which no kernel sees.
std::vector<fs::path> kernel_sources(const fs::path& root) {
  std::vector<fs::path> files;
  for (const char* folder : {"kernels", "tests/simt_kernels"})
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      const std::string extension = entry.path().extension().string();
      const bool header = extension == ".h" && entry.path().parent_path().filename() != "simt";
      if (extension == ".cu" || extension == ".cuh" || header) files.push_back(entry.path());
    }
  return files;
}

std::string without_comment(const std::string& line) { return line.substr(0, line.find("//")); }

TEST_CASE("kernel files keep to the vocabulary") {
  const Rule rules[] = {
      {std::regex("<<<"), "launch(...)"},
      {std::regex("\\basm\\b"), "a wrapper in kernels/cuda/ptx.cuh with its twin"},
      {std::regex("__shared__"), "GPU_SHARED or GPU_SHARED_DYNAMIC"},
      {std::regex("__constant__"), "an argument by value"},
      {std::regex("__activemask"), "the full mask in uniform control flow"},
      {std::regex("cooperative_groups|grid_group|this_grid"), "kernels that follow each other"},
      {std::regex("\\bprintf\\b"), "a test on the simt device"},
      {std::regex("cuda_bf16\\.h|__nv_bfloat16"), "bf16 of kernels/types.h"},
  };
  const fs::path root = fs::path(NANOVLM_FIXTURES).parent_path().parent_path();
  const std::vector<fs::path> files = kernel_sources(root);
  CHECK(files.size() >= 3);
  for (const fs::path& path : files) {
    const std::string name = fs::relative(path, root).generic_string();
    if (kVocabulary.count(name)) continue;
    std::ifstream in(path);
    std::string line;
    for (int number = 1; std::getline(in, line); ++number)
      for (const Rule& rule : rules)
        if (std::regex_search(without_comment(line), rule.pattern)) {
          INFO(name << ":" << number << ": " << line << "\nuse " << rule.instead);
          CHECK(false);
        }
  }
}

}  // namespace
}  // namespace nanovlm::testing
