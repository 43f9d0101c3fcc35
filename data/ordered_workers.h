// Threads that make items ahead of the one who takes them, in the order 0, 1, 2, ..., whoever was done first.
#pragma once
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/error.h"
#include "kernels/parallel.h"

namespace nanovlm {

template <class T>
class OrderedWorkers {
 public:
  // produce(k) is called once for each k in [0, count), from several threads at once unless workers == 1, and at most
  // `window` items ahead of the last one taken. With workers == 0 nothing runs between calls: where none is left,
  // next() makes the next `window` items on the host's pool of threads, several at once if the window is wider than 1.
  OrderedWorkers(int workers, int64_t window, int64_t count, std::function<T(int64_t)> produce)
      : count_(count), produce_(std::move(produce)), slots_(static_cast<size_t>(window)) {
    check(workers >= 0 && window > 0, "workers: ", workers, " threads and a window of ", window,
          ", but threads may not be negative and the window must be positive");
    for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { work(); });
  }

  ~OrderedWorkers() {
    stop();
    for (auto& thread : threads_) thread.join();
  }
  OrderedWorkers(const OrderedWorkers&) = delete;
  OrderedWorkers& operator=(const OrderedWorkers&) = delete;

  // The next item. Throws what produce threw for it; Error after stop() or past the last item. For one thread at a
  // time.
  T next() {
    if (threads_.empty() && taken_ == begun_) fill_window();
    std::unique_lock lock(mutex_);
    check(taken_ < count_, "workers: no item is left");
    Slot& slot = slot_of(taken_);
    ready_.wait(lock, [&] { return slot.full || stopped_; });
    check(!stopped_, "workers: stopped");
    Slot item = std::move(slot);
    slot.full = false;
    ++taken_;
    lock.unlock();
    room_.notify_one();
    if (item.error) std::rethrow_exception(item.error);
    return std::move(*item.value);
  }

  // No item is begun any more, and nobody waits any more. The destructor waits for those being made.
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    ready_.notify_all();
    room_.notify_all();
  }

 private:
  struct Slot {
    bool full = false;
    std::optional<T> value;
    std::exception_ptr error;
  };

  void work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      room_.wait(lock, [&] { return stopped_ || begun_ == count_ || begun_ < taken_ + window(); });
      if (stopped_ || begun_ == count_) return;
      const int64_t k = begun_++;
      lock.unlock();

      Slot made = make(k);

      lock.lock();
      slot_of(k) = std::move(made);
      lock.unlock();
      ready_.notify_one();
    }
  }

  void fill_window() {
    const int64_t end = std::min(begun_ + window(), count_);
    std::atomic<int64_t> following{begun_};
    // Items cost different times, so threads take them one by one instead of the ranges they are offered.
    kernels::parallel_for(end - begun_, 1, [&](int64_t, int64_t) {
      for (int64_t k; (k = following++) < end;) slot_of(k) = make(k);
    });
    begun_ = end;
  }

  Slot make(int64_t k) const {
    Slot made;
    made.full = true;
    try {
      made.value.emplace(produce_(k));
    } catch (...) {
      made.error = std::current_exception();
    }
    return made;
  }

  Slot& slot_of(int64_t k) { return slots_[static_cast<size_t>(k) % slots_.size()]; }
  int64_t window() const { return static_cast<int64_t>(slots_.size()); }

  const int64_t count_;
  const std::function<T(int64_t)> produce_;
  std::mutex mutex_;
  std::condition_variable ready_, room_;
  std::vector<Slot> slots_;  // item k is in slot k % window
  int64_t begun_ = 0, taken_ = 0;
  bool stopped_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace nanovlm
