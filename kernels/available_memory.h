// How much memory this machine could still give, without swapping.
#pragma once
#include <cstdint>
#include <fstream>
#include <limits>
#include <string>

namespace nanovlm::kernels {

// Bytes, by Linux's "MemAvailable"; the largest number where it is not told.
inline int64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  for (int64_t kibibytes = 0; file >> name >> kibibytes;) {
    if (name == "MemAvailable:") return kibibytes * 1024;
    std::getline(file, unit);
  }
  return std::numeric_limits<int64_t>::max();
}

}  // namespace nanovlm::kernels
