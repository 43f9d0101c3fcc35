#include "bench/common/compiled.h"

#include <nlohmann/json.hpp>

#include "bench/common/peer.h"
#include "engine/error.h"

namespace nanovlm::bench {
namespace {

// Without the namespace that tells nvcc's compilation from the executor's (NANOVLM_WORDS).
std::string common_name(std::string name) {
  for (const std::string words : {"cuda_words::", "simt_words::"})
    for (size_t at = 0; (at = name.find(words)) != std::string::npos;) name.erase(at, words.size());
  return name;
}

}  // namespace

#if !defined(NANOVLM_REPORTS)  // the build compiled nothing for a GPU: nvcc is run now
#define NANOVLM_REPORTS ""
#endif

#if defined(NANOVLM_NVCC)
bool CompiledKernels::available() { return true; }

void CompiledKernels::compile(const std::vector<std::string>& sources) {
  std::string files;
  for (const std::string& source : sources)
    if (done_.insert(source).second) files += " '" NANOVLM_SOURCE "/" + source + "'";
  if (files.empty()) return;
  const nlohmann::json table =
      run_peer("python3 '" NANOVLM_SOURCE "/tools/kernel_table.py' --json --nvcc '" NANOVLM_NVCC
               "' --arch 90a " NANOVLM_REPORTS +
               files);
  for (const auto& kernel : table.at("kernels"))
    kernels_[common_name(kernel.at("signature"))] = {kernel.at("registers").get<int>(),
                                                     kernel.at("spilled").get<int>()};
}
#else
bool CompiledKernels::available() { return false; }
void CompiledKernels::compile(const std::vector<std::string>&) {}
#endif

std::optional<simt::Compiled> CompiledKernels::find(const std::string& kernel) const {
  const auto found = kernels_.find(common_name(kernel));
  return found == kernels_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace nanovlm::bench
