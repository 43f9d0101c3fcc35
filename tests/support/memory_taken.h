#pragma once
#include <sys/resource.h>

// By how many KiB the most memory that this process has ever had grew in f(). None under the address sanitizer, which
// keeps what is freed.
template <class F>
long kib_taken(const F& f) {
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  f();
  getrusage(RUSAGE_SELF, &after);
#if defined(__SANITIZE_ADDRESS__)
  return 0;
#else
  return after.ru_maxrss - before.ru_maxrss;
#endif
}
