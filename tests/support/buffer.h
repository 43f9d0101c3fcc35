// Operands of a kernel under test: typed memory between red zones, and repeatable random numbers to fill it with.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <type_traits>
#include <vector>

#include <omp.h>

#include "kernels/types.h"
#include "tests/support/catch.h"
#include "tests/support/memory.h"
#include "tests/support/values.h"

namespace nanovlm::testing {

// n entries of one dtype. It starts as all-ones bytes (NaN as f32 and bf16), so that a place a kernel forgets to write
// shows. Reading it back requires both red zones to be untouched. A buffer of no entries stands for a null argument.
// With `late` it begins so many entries after an address that fits vectors.
class Buffer {
 public:
  Buffer(int64_t n, DType dtype, int64_t late = 0)
      : n_(n), dtype_(dtype), late_(late), bytes_(static_cast<uint8_t*>(take_memory((late + n) * size_of(dtype)))) {}

  // The values, rounded to `dtype`.
  Buffer(const Values& values, DType dtype) : Buffer(static_cast<int64_t>(values.size()), dtype) {
    for (int64_t i = 0; i < n_; ++i) set(i, values[i]);
  }

  Buffer(const Buffer& other) : Buffer(other, other.late_) {}
  Buffer(const Buffer& other, int64_t late) : Buffer(other.n_, other.dtype_, late) {
    std::memcpy(begin(), other.begin(), size());
  }
  Buffer(Buffer&&) = default;
  Buffer& operator=(Buffer&&) = default;

  // The pointer that a contract asks for: void*, or the type that belongs to the dtype. Null if there are no entries.
  template <class T>
  operator T*() {
    if (n_ == 0) return nullptr;
    require_type<std::remove_const_t<T>>();
    return reinterpret_cast<T*>(begin());
  }

  int64_t size() const { return n_ * size_of(dtype_); }  // bytes
  DType dtype() const { return dtype_; }

  Values values() const {
    REQUIRE(intact());
    Values result(n_);
    for (int64_t i = 0; i < n_; ++i) result[i] = get(i);
    return result;
  }

  bool same_bits(const Buffer& other) const {
    return dtype_ == other.dtype_ && n_ == other.n_ && std::memcmp(begin(), other.begin(), size()) == 0;
  }

  bool intact() const { return is_intact(bytes_.get(), late_ * size_of(dtype_) + size()); }

 private:
  struct Free {
    void operator()(uint8_t* p) const { give_memory(p); }
  };

  uint8_t* begin() const { return bytes_.get() + late_ * size_of(dtype_); }

  template <class T>
  void require_type() const {
    if constexpr (std::is_same_v<T, float>) REQUIRE(dtype_ == DType::f32);
    if constexpr (std::is_same_v<T, bf16>) REQUIRE(dtype_ == DType::bf16);
    if constexpr (std::is_same_v<T, int32_t>) REQUIRE(dtype_ == DType::i32);
  }

  template <class T>
  T& at(int64_t i) const {
    return reinterpret_cast<T*>(begin())[i];
  }
  double get(int64_t i) const {
    if (dtype_ == DType::f32) return at<float>(i);
    if (dtype_ == DType::bf16) return static_cast<float>(at<bf16>(i));
    if (dtype_ == DType::i32) return at<int32_t>(i);
    return at<uint8_t>(i);
  }
  void set(int64_t i, double value) {
    if (dtype_ == DType::f32) at<float>(i) = static_cast<float>(value);
    if (dtype_ == DType::bf16) at<bf16>(i) = bf16(static_cast<float>(value));
    if (dtype_ == DType::i32) at<int32_t>(i) = static_cast<int32_t>(value);
    if (dtype_ == DType::u8) at<uint8_t>(i) = static_cast<uint8_t>(value);
  }

  int64_t n_;
  DType dtype_;
  int64_t late_;
  std::unique_ptr<uint8_t[], Free> bytes_;
};

// `values` over and over: special values in every lane of a vector, and in the remainder.
inline Values repeated(const Values& values, int64_t times) {
  Values result;
  for (int64_t i = 0; i < times; ++i) result.insert(result.end(), values.begin(), values.end());
  return result;
}

// The same numbers for the same seed.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  Buffer normal(int64_t n, DType dtype, double deviation = 1, double mean = 0) {
    std::normal_distribution<double> distribution(mean, deviation);
    Values values(n);
    for (double& value : values) value = distribution(engine_);
    return Buffer(values, dtype);
  }

  // Integers in 0 .. bound - 1
  Buffer integers(int64_t n, int64_t bound) {
    Values values(n);
    for (double& value : values) value = static_cast<double>(engine_() % static_cast<uint64_t>(bound));
    return Buffer(values, DType::i32);
  }

  // 0 .. n - 1 in random order
  std::vector<int64_t> permutation(int64_t n) {
    std::vector<int64_t> order(n);
    for (int64_t i = 0; i < n; ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), engine_);
    return order;
  }

 private:
  std::mt19937_64 engine_;
};

// Calls f with OpenMP limited to `count` threads.
template <class F>
void with_threads(int count, const F& f) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(count);
  f();
  omp_set_num_threads(before);
}

constexpr DType kFloatDTypes[] = {DType::f32, DType::bf16};

}  // namespace nanovlm::testing
