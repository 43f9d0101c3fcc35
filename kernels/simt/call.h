// A kernel and its arguments, which each of its threads calls it with.
#pragma once
#include <cstddef>
#include <tuple>
#include <utility>

namespace nanovlm::simt {

template <class... P>
struct Call {
  void (*kernel)(P...);
  std::tuple<P...> arguments;

  // Not instrumented themselves: they read the launching thread's stack, where a GPU has its parameter memory.
  __attribute__((no_sanitize_thread)) static void thread_body(const void* call) {
    static_cast<const Call*>(call)->run(std::index_sequence_for<P...>{});
  }
  template <size_t... I>
  __attribute__((no_sanitize_thread)) void run(std::index_sequence<I...>) const {
    kernel(std::get<I>(arguments)...);
  }
};

}  // namespace nanovlm::simt
