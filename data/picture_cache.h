// Pictures that were decoded and resized already. Many questions are about one picture, so keeping the first ones that
// fit saves work in every epoch; none is thrown out for another, as a pass over more pictures than fit would then never
// find one.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "data/image.h"

namespace nanovlm {

// May be used from several threads at once.
class PictureCache {
 public:
  explicit PictureCache(int64_t max_bytes) : room_(max_bytes) {}

  std::shared_ptr<const Image> find(const std::string& key) const {
    const std::lock_guard lock(mutex_);
    const auto found = pictures_.find(key);
    return found == pictures_.end() ? nullptr : found->second;
  }

  void keep(const std::string& key, std::shared_ptr<const Image> picture) {
    const auto bytes = static_cast<int64_t>(picture->rgb.size() + key.size() + kOverhead);
    const std::lock_guard lock(mutex_);
    if (bytes > room_ || !pictures_.emplace(key, std::move(picture)).second) return;
    room_ -= bytes;
  }

 private:
  static constexpr size_t kOverhead = 200;  // of an entry beside its pixels and key, about

  mutable std::mutex mutex_;
  int64_t room_;
  std::unordered_map<std::string, std::shared_ptr<const Image>> pictures_;
};

}  // namespace nanovlm
