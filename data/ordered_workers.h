// Threads that make the items 0, 1, 2, ... ahead of the one who takes them, in that order, whoever was done first.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/error.h"

namespace nanovlm {

template <class T>
class OrderedWorkers {
 public:
  // produce(k) is called once for each k in [0, count), from several threads at once if workers > 1, and at most
  // `window` items ahead of the last one taken. With workers == 0 it is called by next() itself.
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
    if (threads_.empty()) {
      check(taken_ < count_, "workers: no item is left");
      return produce_(taken_++);
    }
    std::unique_lock lock(mutex_);
    check(taken_ < count_, "workers: no item is left");
    Slot& slot = slots_[static_cast<size_t>(taken_) % slots_.size()];
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

      Slot made;
      made.full = true;
      try {
        made.value.emplace(produce_(k));
      } catch (...) {
        made.error = std::current_exception();
      }

      lock.lock();
      slots_[static_cast<size_t>(k) % slots_.size()] = std::move(made);
      lock.unlock();
      ready_.notify_one();
    }
  }

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
