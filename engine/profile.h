// Where the time of a run goes: launches by name and shape. Filled where NANOVLM_DEBUG is 2 or more.
#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

namespace nanovlm {

// What a launch does; the shape tells launches of one kernel apart where that matters (M, N, K of a product).
struct Work {
  const char* name;
  std::array<int64_t, 3> shape{};

  Work(const char* name, std::array<int64_t, 3> shape = {}) : name(name), shape(shape) {}
};

class Profile {
 public:
  void add(const Work& work, double seconds);
  bool empty() const { return entries_.empty(); }
  std::string table() const;  // the most expensive first: calls, seconds, share, and GFLOP/s of products

 private:
  struct Entry {
    int64_t calls = 0;
    double seconds = 0;
  };
  std::map<std::pair<std::string, std::array<int64_t, 3>>, Entry> entries_;
};

// Adds the time between its construction and destruction to a profile, if there is one.
class LaunchTimer {
 public:
  LaunchTimer(Profile* profile, const Work& work) : profile_(profile), work_(work) {
    if (profile_) start_ = std::chrono::steady_clock::now();
  }
  ~LaunchTimer() {
    if (profile_)
      profile_->add(work_, std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count());
  }
  LaunchTimer(const LaunchTimer&) = delete;
  LaunchTimer& operator=(const LaunchTimer&) = delete;

 private:
  Profile* profile_;
  Work work_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace nanovlm
