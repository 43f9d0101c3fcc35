#include "engine/file.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <future>
#include <memory>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "engine/error.h"
#include "kernels/parallel.h"

namespace nanovlm {
namespace {
constexpr int64_t kPartBytes = int64_t{8} << 20;  // what one thread reads at least: below it a second thread costs more
constexpr int64_t kHalvedBytes = int64_t{4} << 20;  // from here on a thread of its own for one half pays

constexpr int kManyFiles = 128;  // open: few enough to leave room for sockets and libraries' files

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

struct Progress {
  int64_t done = 0;
  int error = 0;  // errno, or 0 at the end of the file
};

Progress pread_all(int fd, char* destination, int64_t bytes, int64_t offset) {
  Progress progress;
  while (progress.done < bytes) {
    const ssize_t got = pread(fd, destination + progress.done, static_cast<size_t>(bytes - progress.done),
                              static_cast<off_t>(offset + progress.done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) progress.error = errno;
    if (got <= 0) break;
    progress.done += got;
  }
  return progress;
}

// The usual soft limit of 1024 open files is for programs that use select(); a data set may have thousands of shards.
void allow_more_files() {
  static const bool once [[maybe_unused]] = [] {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return false;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
  }();
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == path.npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}
}  // namespace

File::File(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}

File File::open(const std::string& path) {
  check(path.find('\0') == path.npos, "\"", path.c_str(), "\": expected a file name, found a byte 0 in it");
  // Without O_NONBLOCK opening a pipe would wait for its other end.
  File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK), path);
  check(file.fd_ >= 0, path, ": can't be opened: ", std::strerror(errno));
  if (file.fd_ >= kManyFiles) allow_more_files();
  struct stat info {};
  check(fstat(file.fd_, &info) == 0, path, ": can't be examined: ", std::strerror(errno));
  check(S_ISREG(info.st_mode), path, ": expected a regular file, found ", kind_of(info.st_mode));
  file.size_ = info.st_size;
  return file;
}

File File::open_beneath(const std::string& root, const std::string& name) {
  check(!name.empty() && name.front() != '/' && name.find('\0') == name.npos, "\"", name.c_str(),
        "\": expected a path inside ", root, ", found ", name.empty() ? "an empty one" : "an absolute one");
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    check(name.compare(begin, end - begin, "..") != 0, "\"", name, "\": expected a path inside ", root,
          ", found \"..\" in it");
    begin = end + 1;
  }
  const std::string joined = root + "/" + name;
  const std::unique_ptr<char, void (*)(void*)> resolved(realpath(joined.c_str(), nullptr), std::free);
  check(resolved != nullptr, joined, ": can't be opened: ", std::strerror(errno));
  const std::string inside = root == "/" ? root : root + "/";
  check(std::string_view(resolved.get()).starts_with(inside), joined, ": expected a path inside ", root,
        ", found a link to ", resolved.get());
  return open(resolved.get());
}

File::File(File&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)), size_(other.size_) {}

File& File::operator=(File&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  std::swap(size_, other.size_);
  return *this;
}

File::~File() {
  if (fd_ >= 0) close(fd_);
}

void File::fail_reading(int64_t offset, int64_t expected, int64_t found, int error) const {
  check(error == 0, path_, ": byte ", offset + found, ": can't be read: ", std::strerror(error));
  fail(path_, ": byte ", offset, ": expected ", expected, " bytes, found ", found);
}

void File::expect_random_reads() const { posix_fadvise(fd_, 0, 0, POSIX_FADV_RANDOM); }

void File::read(void* destination, int64_t bytes, int64_t offset) const {
  const Progress progress = pread_all(fd_, static_cast<char*>(destination), bytes, offset);
  if (progress.done != bytes) fail_reading(offset, bytes, progress.done, progress.error);
}

void File::read_soon(void* destination, int64_t bytes, int64_t offset) const {
  if (bytes < kHalvedBytes) return read(destination, bytes, offset);
  const int64_t half = bytes / 2;
  auto rest = std::async(std::launch::async,
                         [&] { read(static_cast<char*>(destination) + half, bytes - half, offset + half); });
  read(destination, half, offset);
  rest.get();
}

// Whether all of it lies in the system's cache. The mapping is asked about, never read.
bool File::is_cached(int64_t offset, int64_t bytes) const {
  const int64_t page = sysconf(_SC_PAGESIZE), begin = offset / page * page;
  const auto length = static_cast<size_t>(offset + bytes - begin);
  void* const mapped = mmap(nullptr, length, PROT_READ, MAP_SHARED, fd_, static_cast<off_t>(begin));
  if (mapped == MAP_FAILED) return true;
  std::vector<unsigned char> pages((length + static_cast<size_t>(page) - 1) / static_cast<size_t>(page));
  const bool known = mincore(mapped, length, pages.data()) == 0;
  munmap(mapped, length);
  return !known || std::all_of(pages.begin(), pages.end(), [](unsigned char state) { return state & 1; });
}

// Whole blocks, by two threads. False: this file, or its system, can't be read so, or the bytes are not there.
bool File::read_direct(char* destination, int64_t bytes, int64_t offset) const {
#if defined(O_DIRECT)
  const int fd = ::open(text("/proc/self/fd/", fd_).c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  if (fd < 0) return false;
  const int64_t half = bytes / 2 / kBlock * kBlock, rest = (bytes - half + kBlock - 1) / kBlock * kBlock;
  auto second = std::async(std::launch::async, [&] {  // where the file ends inside its last block, so does the read
    return pread_all(fd, destination + half, rest, offset + half).done >= bytes - half;
  });
  const bool first = pread_all(fd, destination, half, offset).done == half;
  const bool both = second.get() && first;
  close(fd);
  return both;
#else
  return false;
#endif
}

int64_t File::read_past_cache(char* destination, int64_t bytes, int64_t offset) const {
  const int64_t skipped = offset % kBlock;
  check(reinterpret_cast<uintptr_t>(destination) % kBlock == 0, path_, ": a read past the cache goes to a whole block");
  if (bytes < kHalvedBytes || is_cached(offset, bytes) || !read_direct(destination, skipped + bytes, offset - skipped))
    read_soon(destination + skipped, bytes, offset);
  return skipped;
}

void File::read_parallel(std::span<const Range> ranges) const {
  std::vector<int64_t> ends;  // of each range, as if all of them lay behind one another
  for (const Range& range : ranges) ends.push_back((ends.empty() ? 0 : ends.back()) + range.bytes);
  bool complete = true;  // what to say of a failure should not depend on how threads shared the ranges
  kernels::parallel_for(ends.empty() ? 0 : ends.back(), kPartBytes, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(std::upper_bound(ends.begin(), ends.end(), begin) - ends.begin()); begin < end;
         ++i) {
      const Range& range = ranges[i];
      const int64_t skipped = begin - (ends[i] - range.bytes), wanted = std::min(end, ends[i]) - begin;
      char* destination = static_cast<char*>(range.destination) + skipped;
      if (pread_all(fd_, destination, wanted, range.offset + skipped).done != wanted)
        __atomic_store_n(&complete, false, __ATOMIC_RELAXED);
      begin += wanted;
    }
  });
  if (complete) return;
  for (const Range& range : ranges) read(range.destination, range.bytes, range.offset);  // says what is wrong and where
}

void File::read_parallel(void* destination, int64_t bytes, int64_t offset) const {
  const Range range = {destination, bytes, offset};
  read_parallel({&range, 1});
}

std::vector<uint8_t> File::read_all(int64_t max_bytes) const {
  check(size_ <= max_bytes, path_, ": expected at most ", max_bytes, " bytes, found ", size_);
  std::vector<uint8_t> bytes(static_cast<size_t>(size_));
  read(bytes.data(), size_, 0);
  return bytes;
}

NewFile::NewFile(const std::string& path) : path_(path), temporary_(text(path, ".tmp-", getpid())) {
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_writing("created", errno);
}

NewFile::~NewFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

void NewFile::fail_writing(const char* what, int error) const {
  std::string room;
  struct statvfs disk {};
  if ((error == ENOSPC || error == EDQUOT) && statvfs(folder_of(path_).c_str(), &disk) == 0)
    room = text(" (", written_, " bytes written, ", static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize, " free)");
  fail(path_, ": can't be ", what, ": ", std::strerror(error), room);
}

void NewFile::write(const void* bytes, int64_t count) {
  const char* at = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t done = ::write(fd_, at, static_cast<size_t>(count));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail_writing("written", errno);
    at += done;
    count -= done;
    written_ += done;
  }
}

void NewFile::commit() {
  if (fsync(fd_) != 0) fail_writing("written", errno);
  const int file = std::exchange(fd_, -1);
  const bool closed = close(file) == 0;
  if (!closed || rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    unlink(temporary_.c_str());
    fail_writing(closed ? "renamed" : "written", error);
  }
  const int folder = ::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) fail_writing("made durable", errno);
  const int synced = fsync(folder), error = errno;
  close(folder);
  // Some file systems have no fsync for folders.
  if (synced != 0 && error != EINVAL) fail_writing("made durable", error);
}

void write_file(const std::string& path, std::string_view bytes) {
  NewFile file(path);
  file.write(bytes);
  file.commit();
}

}  // namespace nanovlm
