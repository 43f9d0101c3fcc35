// Scratch memory of the CPU kernels. Internal linkage, as in kernels/cpu_math.h.
#pragma once
#include <cstdint>
#include <cstring>
#include <new>

namespace nanovlm::kernels {
namespace {

// n zeros, aligned for vectors.
class Floats {
 public:
  explicit Floats(int64_t n) : data_(static_cast<float*>(::operator new(n * sizeof(float), kAlignment))) {
    std::memset(data_, 0, n * sizeof(float));
  }
  ~Floats() { ::operator delete(data_, kAlignment); }
  Floats(const Floats&) = delete;
  Floats& operator=(const Floats&) = delete;
  operator float*() const { return data_; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  float* data_;
};

}  // namespace
}  // namespace nanovlm::kernels
