#include "data/picture_cache.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <sys/statvfs.h>
#include <unistd.h>

namespace nanovlm {

PictureCache::PictureCache(int64_t max_bytes, const std::string& folder) : room_(max_bytes) {
  if (folder.empty()) return;
  std::string name = folder + "/pictures-XXXXXX";
  file_ = mkstemp(name.data());
  struct statvfs disk {};
  check(file_ >= 0 && unlink(name.c_str()) == 0 && fstatvfs(file_, &disk) == 0, folder,
        ": can't hold decoded pictures: ", std::strerror(errno));
  disk_room_ = static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize) / 2;
}

PictureCache::~PictureCache() {
  if (file_ >= 0) close(file_);
}

std::shared_ptr<const Image> PictureCache::find(const std::string& key) const {
  OnDisk entry{};
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = pictures_.find(key); found != pictures_.end()) return found->second;
    const auto found = on_disk_.find(key);
    if (found == on_disk_.end()) return nullptr;
    entry = found->second;
  }
  return read(entry);
}

void PictureCache::keep(const std::string& key, std::shared_ptr<const Image> picture) {
  const auto bytes = static_cast<int64_t>(picture->rgb.size() + key.size() + kOverhead);
  {
    const std::lock_guard lock(mutex_);
    if (pictures_.contains(key) || on_disk_.contains(key)) return;
    if (bytes <= room_) {
      pictures_.emplace(key, std::move(picture));
      room_ -= bytes;
      return;
    }
  }
  if (file_ >= 0) write(key, *picture);
}

// A picture that can't be read again is decoded again.
std::shared_ptr<const Image> PictureCache::read(const OnDisk& entry) const {
  auto picture = std::make_shared<Image>(Image{entry.width, entry.height, {}});
  picture->rgb.resize(static_cast<size_t>(entry.width) * static_cast<size_t>(entry.height) * 3);
  const ssize_t got = pread(file_, picture->rgb.data(), picture->rgb.size(), static_cast<off_t>(entry.offset));
  return got == static_cast<ssize_t>(picture->rgb.size()) ? picture : nullptr;
}

void PictureCache::write(const std::string& key, const Image& picture) {
  const auto bytes = static_cast<int64_t>(picture.rgb.size());
  OnDisk entry{0, picture.width, picture.height};
  {
    const std::lock_guard lock(mutex_);
    if (bytes > disk_room_) return;
    disk_room_ -= bytes;
    entry.offset = disk_end_;
    disk_end_ += bytes;
  }
  const bool written = pwrite(file_, picture.rgb.data(), picture.rgb.size(), static_cast<off_t>(entry.offset)) == bytes;
  const std::lock_guard lock(mutex_);
  if (written)
    on_disk_.emplace(key, entry);
  else
    disk_room_ = 0;  // the disk is full: what is there stays
}

}  // namespace nanovlm
