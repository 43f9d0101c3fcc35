// Pictures that were decoded and resized already. Many questions are about one picture, and every epoch needs it again,
// so keeping the first ones that fit saves work; none is thrown out for another, as a pass over more pictures than fit
// would then never find one.
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
  // `max_bytes` of memory; with a folder, what exceeds them goes to a nameless file there, as bytes, which takes at
  // most half of the disk's free room and is gone with the process. Error: the folder can't be written to.
  explicit PictureCache(int64_t max_bytes, const std::string& folder = "");
  PictureCache(const PictureCache&) = delete;
  PictureCache& operator=(const PictureCache&) = delete;
  ~PictureCache();

  std::shared_ptr<const Image> find(const std::string& key) const;  // null: it is not kept
  void keep(const std::string& key, std::shared_ptr<const Image> picture);

 private:
  struct OnDisk {
    int64_t offset;
    int width, height;
  };
  static constexpr size_t kOverhead = 200;  // of an entry beside its pixels and key, about

  std::shared_ptr<const Image> read(const OnDisk& entry) const;
  void write(const std::string& key, const Image& picture);

  mutable std::mutex mutex_;
  int64_t room_, disk_room_ = 0, disk_end_ = 0;
  int file_ = -1;
  std::unordered_map<std::string, std::shared_ptr<const Image>> pictures_;
  std::unordered_map<std::string, OnDisk> on_disk_;
};

}  // namespace nanovlm
