// Memory that every backend can read and write, between red zones: managed memory where there is a GPU, the heap
// elsewhere; and for the instrumented kernels memory whose bounds their executor checks.
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

// Said by the caller, since one library serves the tests of both builds.
enum class Bounds { by_red_zones, by_executor };
#if defined(NANOVLM_SIMT_INSTRUMENTED)
inline constexpr Bounds kBounds = Bounds::by_executor;
#else
inline constexpr Bounds kBounds = Bounds::by_red_zones;
#endif

// All of it is NaN as f32 and bf16, whatever is read of it or of the red zones. 64-byte aligned.
void* take_memory(size_t bytes, Bounds bounds = kBounds);
void give_memory(void* memory, Bounds bounds = kBounds);
// Whether nobody has written the red zones of memory of so many bytes.
bool is_intact(const void* memory, size_t bytes, Bounds bounds = kBounds);

// One number in such memory.
template <class T>
class Number {
 public:
  explicit Number(const T& value) : place_(static_cast<T*>(take_memory(sizeof(T)))) { *place_ = value; }
  T* place() const { return place_.get(); }
  T value() const { return *place_; }

 private:
  struct Free {
    void operator()(T* p) const { give_memory(p); }
  };
  std::unique_ptr<T, Free> place_;
};

}  // namespace nanovlm::testing
