// How much of a GPU a kernel launch asks for; the same words for nvcc and for the host executor.
#pragma once
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "kernels/types.h"

// What kernel files share is compiled twice, by nvcc and for the executor on the host, and both end up in one program.
// Each has an inline namespace of its own, or the linker would take one's functions for the other's. So has the third
// compilation, for the cuda device's tests without a GPU (kernels/stand_in/).
#if defined(__CUDACC__)
#define NANOVLM_WORDS cuda_words
#elif defined(NANOVLM_STAND_IN)
#define NANOVLM_WORDS stand_in_words
#else
#define NANOVLM_WORDS simt_words
#endif

namespace nanovlm::kernels {

// Blocks of a grid or threads of a block. A plain number is its x.
struct Extent {
  int64_t x, y, z;

  constexpr Extent(int64_t x, int64_t y = 1, int64_t z = 1) : x(x), y(y), z(z) {}
  constexpr int64_t count() const { return x * y * z; }
};

struct LaunchShape {
  Extent grid;               // blocks
  Extent block;              // threads in a block: at most 1024
  int64_t shared_bytes = 0;  // dynamic shared memory a block
  Stream stream = {};
};

}  // namespace nanovlm::kernels

namespace nanovlm::kernels::inline NANOVLM_WORDS {

// Throws where CUDA would refuse the shape, naming the kernel.
inline void check_shape(const char* name, const LaunchShape& shape) {
  const auto refuse = [&](const std::string& what, int64_t found, int64_t limit) {
    throw std::invalid_argument(std::string(name) + ": " + what + " is " + std::to_string(found) +
                                ", but a launch allows 1 to " + std::to_string(limit));
  };
  const auto within = [&](const char* what, int64_t value, int64_t limit) {
    if (value < 1 || value > limit) refuse(what, value, limit);
  };
  within("grid.x", shape.grid.x, 0x7fffffff);
  within("grid.y", shape.grid.y, 65535);
  within("grid.z", shape.grid.z, 65535);
  within("block.x", shape.block.x, 1024);
  within("block.y", shape.block.y, 1024);
  within("block.z", shape.block.z, 64);
  within("threads in a block", shape.block.count(), 1024);
}

// An argument as the kernel's parameter type. An integer that the parameter cannot hold throws instead of wrapping.
template <class Parameter, class Argument>
Parameter kernel_argument(const char* name, const Argument& value) {
  if constexpr (std::is_integral_v<Parameter> && std::is_integral_v<Argument> && !std::is_same_v<Parameter, Argument>) {
    if (!std::in_range<Parameter>(value))
      throw std::invalid_argument(std::string(name) + ": argument " + std::to_string(value) +
                                  " does not fit the kernel's parameter of " + std::to_string(sizeof(Parameter)) +
                                  " bytes");
  }
  return static_cast<Parameter>(value);
}

}  // namespace nanovlm::kernels::inline NANOVLM_WORDS
