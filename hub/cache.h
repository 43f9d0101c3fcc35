// The cache of repositories, laid out as the Python client has it, so that either finds what the other fetched:
//
//     models--org--name/blobs/<digest>                          a file's bytes, under its digest
//     models--org--name/blobs/<digest>.incomplete               a download under way, or cut
//     models--org--name/snapshots/<commit>/<path>               -> ../../blobs/<digest>
//     models--org--name/refs/<branch or tag>                    the commit it stood for when last asked
//     models--org--name/trees/<commit>.json                     what the commit holds
//     models--org--name/.no_exist/<commit>/<path>               asked for, and not there
//     .locks/models--org--name/<digest>.lock
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "hub/repository.h"

namespace nanovlm::hub {

// Held by one process at a time; the others wait. Given up when the process ends, however it ends.
class FileLock {
 public:
  explicit FileLock(const std::string& path);
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  ~FileLock();

 private:
  int fd_ = -1;
};

class Cache {
 public:
  Cache(const std::string& root, const std::string& repository, RepoType type);

  // Nothing is created by asking; whoever writes to a path below creates its folder.
  std::string blob(const Entry& entry) const { return folder_ + "/blobs/" + entry.etag(); }
  std::string lock(const Entry& entry) const { return locks_ + "/" + entry.etag() + ".lock"; }
  std::string snapshot(const std::string& commit) const { return folder_ + "/snapshots/" + commit; }

  bool has_blob(const Entry& entry) const;                             // with the entry's size
  bool has_file(const std::string& commit, const Entry& entry) const;  // in the snapshot, with the entry's size
  void link_file(const std::string& commit, const Entry& entry) const;

  std::optional<std::string> commit_of(const std::string& revision) const;
  void write_ref(const std::string& revision, const std::string& commit) const;

  std::optional<Listing> listing(const std::string& commit) const;  // empty also where the file is of no use
  void write_listing(const Listing& listing) const;
  void note_missing(const std::string& commit, const std::string& path) const;

 private:
  std::string folder_, locks_;
};

// Error: the folder above `path` can't be created.
void create_folder_of(const std::string& path);

// The files below a folder that match one of the patterns, sorted; links to files count as files.
std::vector<std::string> files_below(const std::string& folder, const std::vector<std::string>& patterns);

}  // namespace nanovlm::hub
