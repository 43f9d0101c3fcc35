// The shared memory of the block that a worker is running: poisoned, surrounded by red zones, and handed out by
// declaration (GPU_SHARED). Arrays check their indices and name the line that is wrong.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/simt/where.h"

namespace nanovlm::simt {

constexpr uint8_t kPoison = 0xff;  // read as a float or a bf16 it is a NaN, as an integer -1

// One declaration of shared memory; its address is its identity, as in CUDA.
struct SharedKey {
  const char* name;
  Where where;
  bool dynamic;  // its size is the launch's
};

struct SharedArrayRecord {
  const SharedKey* key;
  char* begin;
  int64_t bytes;
};

class SharedMemory {
 public:
  explicit SharedMemory(int64_t capacity);

  void begin_block() { arrays_.clear(), used_ = 0; }
  // The same memory for the same key until the next block. Null where the block has no room for it.
  char* declare(const SharedKey& key, int64_t bytes);
  // The name of an array whose red zone has been written, or null.
  const SharedKey* overrun() const;
  // The array that holds `address`, or null.
  const SharedArrayRecord* find(const void* address) const;

  bool holds(const void* address) const { return address >= memory_.get() && address < memory_.get() + capacity_; }
  int64_t offset(const void* address) const { return static_cast<const char*>(address) - memory_.get(); }
  char* at(int64_t offset) const { return memory_.get() + offset; }
  int64_t capacity() const { return capacity_; }
  const SharedKey* dynamic() const;  // the array of that kind declared so far, or null
  int64_t static_bytes() const;      // of the others

 private:
  struct Free {
    void operator()(char* memory) const;
  };
  int64_t capacity_, used_ = 0;
  std::unique_ptr<char[], Free> memory_;
  std::vector<SharedArrayRecord> arrays_;
};

// Ends the running kernel with an error at `where`.
[[noreturn]] void fail_index(const char* array, int64_t index, int64_t size, Where where);
char* declare_shared(const SharedKey& key, int64_t bytes);
int64_t dynamic_shared_bytes();

// An index that knows its line: the conversion at the call fills it in.
struct At {
  int64_t index;
  Where where;

  template <class I>
  requires(std::is_integral_v<I> || std::is_enum_v<I>) At(I index, Where where = Where::here())
      : index(static_cast<int64_t>(index)), where(where) {}
};

// A[N][M]... in shared memory. A one-dimensional one, or a row of a larger one, converts to a plain pointer.
template <class A>
class SharedArray;

template <class T>
class SharedArray<T[]> {
 public:
  SharedArray(T* begin, int64_t size, const char* name) : begin_(begin), size_(size), name_(name) {}
  T& operator[](At at) const {
    if (static_cast<uint64_t>(at.index) >= static_cast<uint64_t>(size_)) fail_index(name_, at.index, size_, at.where);
    return begin_[at.index];
  }
  // A template, so that indexing cannot take it for a pointer and escape the check.
  template <class P>
  requires(std::is_same_v<P, T*> || std::is_same_v<P, const T*>) operator P() const { return begin_; }
  T* operator+(int64_t n) const { return begin_ + n; }

 private:
  T* begin_;
  int64_t size_;
  const char* name_;
};

template <class T, size_t N>
class SharedArray<T[N]> : public SharedArray<T[]> {
 public:
  SharedArray(T* begin, const char* name) : SharedArray<T[]>(begin, N, name) {}
};

template <class T, size_t N, size_t M>
class SharedArray<T[N][M]> {
 public:
  using Element = std::remove_all_extents_t<T>;
  static constexpr size_t kRow = sizeof(T[M]) / sizeof(Element);

  SharedArray(Element * begin, const char* name) : begin_(begin), name_(name) {}
  SharedArray<T[M]> operator[](At at) const {
    if (static_cast<uint64_t>(at.index) >= N) fail_index(name_, at.index, N, at.where);
    return {begin_ + static_cast<size_t>(at.index) * kRow, name_};
  }

 private:
  Element* begin_;
  const char* name_;
};

template <class A>
SharedArray<A> shared_array(const SharedKey& key) {
  using Element = std::remove_all_extents_t<A>;
  return {reinterpret_cast<Element*>(declare_shared(key, sizeof(A))), key.name};
}

template <class T>
SharedArray<T[]> dynamic_shared_array(const SharedKey& key) {
  const int64_t bytes = dynamic_shared_bytes();
  return {reinterpret_cast<T*>(declare_shared(key, bytes)), bytes / static_cast<int64_t>(sizeof(T)), key.name};
}

}  // namespace nanovlm::simt
