// Memory that every backend can read and write: managed memory where there is a GPU, the heap elsewhere.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace nanovlm::testing {

// Whether NANOVLM_TEST_BACKEND, where it is set, is `name`: the tests' entries of one backend alone set it.
inline bool is_tested(const char* name) {
  const char* only = std::getenv("NANOVLM_TEST_BACKEND");
  return !only || !*only || std::strcmp(only, name) == 0;
}

void* take_memory(size_t bytes);  // 64-byte aligned
void give_memory(void* memory);

// One number in such memory.
template <class T>
class Number {
 public:
  explicit Number(T value) : place_(static_cast<T*>(take_memory(sizeof(T)))) { *place_ = value; }
  T* place() const { return place_.get(); }
  T value() const { return *place_; }

 private:
  struct Free {
    void operator()(T* p) const { give_memory(p); }
  };
  std::unique_ptr<T, Free> place_;
};

}  // namespace nanovlm::testing
