// Memory that every backend can read and write: managed memory where there is a GPU, the heap elsewhere.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <cstring>

namespace nanovlm::testing {

// Whether NANOVLM_TEST_BACKEND, where it is set, is `name`: the tests' entries of one backend alone set it.
inline bool is_tested(const char* name) {
  const char* only = std::getenv("NANOVLM_TEST_BACKEND");
  return !only || !*only || std::strcmp(only, name) == 0;
}

void* take_memory(size_t bytes);  // 64-byte aligned
void give_memory(void* memory);

}  // namespace nanovlm::testing
