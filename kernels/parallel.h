// One pool of threads for everything on the host: OpenMP's, which oneDNN and OpenBLAS use too.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>

#include <omp.h>

namespace nanovlm::kernels {

// Shows the thread sanitizer what a parallel region orders, since it does not see OpenMP's own waiting: fork() before a
// region and join() behind it, begin() and end() in each of its threads. Nothing in other builds.
class RegionOrder {
 public:
#if defined(NANOVLM_TSAN)
  void fork() { forked_.store(1, std::memory_order_release); }
  void begin() { forked_.load(std::memory_order_acquire); }
  void end() { ended_.fetch_add(1, std::memory_order_release); }
  void join() { ended_.load(std::memory_order_acquire); }

 private:
  std::atomic<int> forked_ = 0, ended_ = 0;  // one alone would order threads that begin late behind ended ones
#else
  void fork() {}
  void begin() {}
  void end() {}
  void join() {}
#endif
};

// Carries an exception out of a parallel region, which it must not leave by itself: run() in each thread, and rethrow()
// behind the region. Of several exceptions the first.
class RegionError {
 public:
  template <class F>
  void run(const F& f) {
    try {
      f();
    } catch (...) {
      if (!caught_.exchange(true)) error_ = std::current_exception();
    }
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::atomic<bool> caught_ = false;
  std::exception_ptr error_;
};

// Calls f(begin, end) on ranges that tile [0, n). A range holds at least `grain` items, so that small work stays on the
// calling thread. Which thread gets which range depends on their number: f must not let that reach its result.
template <class F>
void parallel_for(int64_t n, int64_t grain, const F& f) {
  const int64_t wanted = grain > 0 ? (n + grain - 1) / grain : n;
  const int64_t threads = wanted < omp_get_max_threads() ? wanted : omp_get_max_threads();
  if (threads <= 1 || omp_in_parallel()) {
    if (n > 0) f(int64_t{0}, n);
    return;
  }
  RegionOrder order;
  RegionError error;
  order.fork();
#pragma omp parallel num_threads(static_cast <int>(threads))
  {
    order.begin();
    const int64_t i = omp_get_thread_num(), count = omp_get_num_threads();
    const int64_t begin = n * i / count, end = n * (i + 1) / count;
    if (begin < end) error.run([&] { f(begin, end); });
    order.end();
  }
  order.join();
  error.rethrow();
}

}  // namespace nanovlm::kernels
