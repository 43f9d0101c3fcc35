#include "hub/blob.h"

#include <cerrno>
#include <cstring>
#include <filesystem>

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "hub/digest.h"

namespace nanovlm::hub {
namespace {

int64_t free_bytes(const std::string& file) {
  struct statvfs disk {};
  const std::string folder = std::filesystem::path(file).parent_path().string();
  if (statvfs(folder.c_str(), &disk) != 0) return INT64_MAX;
  return static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
}

Digest digest_of(const Entry& entry) { return entry.sha256.empty() ? Digest::git_blob(entry.size) : Digest::sha256(); }

// A download under way. What is on disk is always the beginning of the file, or garbage that the digest will tell.
class PartialFile {
 public:
  PartialFile(const std::string& path, const Entry& entry) : path_(path), entry_(entry), digest_(digest_of(entry)) {
    create_folder_of(path);
    fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    check(fd_ >= 0, path, ": can't be created: ", std::strerror(errno));
    const File earlier = File::open(path);
    if (earlier.size() > entry.size) {
      restart();
    } else {
      digest_.update(earlier, earlier.size());
      size_ = earlier.size();
    }
  }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;
  ~PartialFile() { close(fd_); }

  int64_t size() const { return size_; }

  void restart() {
    check(ftruncate(fd_, 0) == 0, path_, ": can't be cut: ", std::strerror(errno));
    digest_ = digest_of(entry_);
    size_ = 0;
  }

  // By position and not at the end: where locks don't work (some network file systems) two processes then write the
  // same bytes to the same places.
  void append(const char* bytes, int64_t count) {
    digest_.update(bytes, count);
    while (count > 0) {
      const ssize_t done = pwrite(fd_, bytes, static_cast<size_t>(count), static_cast<off_t>(size_));
      if (done < 0 && errno == EINTR) continue;
      check(done >= 0, path_, ": can't be written: ", std::strerror(errno), " (byte ", size_, " of ", entry_.size, ", ",
            free_bytes(path_), " free)");
      bytes += done;
      count -= done;
      size_ += done;
    }
  }

  std::string digest() { return digest_.hex(); }

  // Of the folder nothing is synced: a name that a power cut takes back is only fetched again.
  void commit(const std::string& name) {
    check(fsync(fd_) == 0, path_, ": can't be written: ", std::strerror(errno));
    check(rename(path_.c_str(), name.c_str()) == 0, name, ": can't be put in place: ", std::strerror(errno));
  }
  void discard() { unlink(path_.c_str()); }

 private:
  std::string path_;
  const Entry& entry_;
  Digest digest_;
  int fd_ = -1;
  int64_t size_ = 0;
};

std::string value_of(const Headers& headers, const char* name) {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

// "abc" of W/"abc"; empty if that is no digest, as with servers that have tags of their own.
std::string digest_in(std::string tag) {
  if (tag.starts_with("W/")) tag.erase(0, 2);
  if (tag.size() >= 2 && tag.front() == '"' && tag.back() == '"') tag = tag.substr(1, tag.size() - 2);
  const bool hex = tag.find_first_not_of("0123456789abcdef") == tag.npos;
  return hex && (tag.size() == 40 || tag.size() == 64) ? tag : "";
}

// What the Hub says of the file beside its bytes must be what its listing said.
void check_offer(const std::string& url, const Response& response, const std::string& commit, const Entry& entry) {
  const Headers& hub = response.hub_headers;
  const auto expect = [&](const char* what, const std::string& expected, const std::string& found) {
    check(found.empty() || found == expected, url, ": expected ", what, " ", expected,
          ", as the repository lists it, found ", found);
  };
  expect("commit", commit, value_of(hub, "x-repo-commit"));
  expect("size", text(entry.size), value_of(hub, "x-linked-size"));
  std::string tag = value_of(hub, "x-linked-etag");
  if (tag.empty() && !hub.contains("location")) tag = value_of(hub, "etag");
  expect("digest", entry.etag(), digest_in(tag));
  if (response.status == 200) expect("size", text(entry.size), value_of(response.headers, "content-length"));
}

// Where the bytes of an answer belong: "bytes 100-199/200", or the whole file because the server ignored the range.
void place(const std::string& url, const Response& response, const Entry& entry, PartialFile& partial) {
  if (response.status != 206) {
    if (partial.size() > 0) partial.restart();
    return;
  }
  const std::string range = value_of(response.headers, "content-range");
  const std::string expected = text("bytes ", partial.size(), "-", entry.size - 1, "/", entry.size);
  check(range == expected, url, ": expected ", expected, ", found \"", range, "\"");
}

void receive(HttpClient& client, const std::string& url, const std::string& commit, const Entry& entry,
             PartialFile& partial, const Progress& progress) {
  Patience patience(client.settings());
  while (partial.size() < entry.size) {
    const int64_t before = partial.size();
    Request request{.url = url};
    if (before > 0) request.headers = {text("Range: bytes=", before, "-")};
    bool begun = false;
    request.receive = [&](const Response& so_far, const char* bytes, int64_t count) {
      if (!begun) {
        check_offer(url, so_far, commit, entry);
        place(url, so_far, entry, partial);
        begun = true;
      }
      check(count <= entry.size - partial.size(), url, ": expected ", entry.size, " bytes, found more");
      partial.append(bytes, count);
      if (progress) progress(entry.path, partial.size(), entry.size);
    };
    try {
      const Response response = client.exchange(request);
      if (response.status == 416 && before > 0)
        partial.restart();
      else if (!response.ok())
        fail_status(request, response);
      else if (partial.size() < entry.size)
        throw NetworkError(text(url, ": expected ", entry.size, " bytes, found ", partial.size()));
    } catch (const NetworkError&) {
      if (partial.size() > before) patience.progressed();
      if (!patience.another_try()) throw;
    }
  }
}

void check_room(const std::string& path, const Entry& entry, int64_t bytes) {
  const int64_t room = free_bytes(path);
  check(bytes <= room, path, ": expected room for ", bytes, " bytes of ", entry.path, ", found ", room, " free");
}

}  // namespace

void fetch_blob(HttpClient& client, const Repository& repository, const std::string& commit, const Entry& entry,
                const Cache& cache, const Progress& progress) {
  const std::string url = repository.file_url(commit, entry.path);
  const FileLock lock(cache.lock(entry));
  while (!cache.has_blob(entry)) {
    PartialFile partial(cache.blob(entry) + ".incomplete", entry);
    const bool resumed = partial.size() > 0;
    check_room(cache.blob(entry), entry, entry.size - partial.size());
    receive(client, url, commit, entry, partial, progress);
    const std::string found = partial.digest();
    if (found == entry.etag()) return partial.commit(cache.blob(entry));
    partial.discard();
    // What an earlier run had left may be at fault; it is gone now.
    check(resumed, url, ": expected ", entry.sha256.empty() ? "git's digest " : "SHA-256 ", entry.etag(), ", found ",
          found);
  }
}

}  // namespace nanovlm::hub
