// What nvcc's assembler says of CUDA kernels, where nvcc was found by the build: no GPU is needed.
#pragma once
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kernels/simt/report.h"

namespace nanovlm::bench {

class CompiledKernels {
 public:
  // Compiles these files for sm_90a, once (tools/kernel_table.py); nothing where there is no nvcc.
  void compile(const std::vector<std::string>& sources);
  static bool available();

  // Of the kernel with this name, template arguments included (simt::KernelReport::function).
  std::optional<simt::Compiled> find(const std::string& kernel) const;

 private:
  std::set<std::string> done_;
  std::map<std::string, simt::Compiled> kernels_;
};

}  // namespace nanovlm::bench
