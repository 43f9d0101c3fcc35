// Files that came from outside, read by position (never mapped: a mapped file that shrinks kills the process), and
// files that appear whole or not at all.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nanovlm {

// A regular file opened for reading. Several threads may read from it at once.
class File {
 public:
  // Error: it can't be opened, or is no regular file (a folder, a pipe, a device: opening never waits).
  static File open(const std::string& path);

  // `name` as a path below the folder `root`, which must be given in its canonical form. Error too if the name is empty
  // or absolute, has a ".." in it, or leads out of the folder through a symbolic link.
  static File open_beneath(const std::string& root, const std::string& name);

  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();

  const std::string& path() const { return path_; }
  int64_t size() const { return size_; }  // when it was opened

  // Reads are not in order: the system then reads what is asked for and nothing behind it.
  void expect_random_reads() const;

  // Exactly `bytes` bytes from `offset` on. Error: they are not there.
  void read(void* destination, int64_t bytes, int64_t offset) const;

  // The same, megabytes by a second thread too, from wherever it is called: for whoever waits for them.
  void read_soon(void* destination, int64_t bytes, int64_t offset) const;

  // The same for megabytes that will hardly be read again: what the system has not cached is read past its cache, whose
  // new memory can cost more than the disk. The bytes begin at destination + the result, which is less than kBlock.
  // `destination` begins at a multiple of kBlock and has room for `bytes` + 2 kBlock.
  static constexpr int64_t kBlock = 4096;
  int64_t read_past_cache(char* destination, int64_t bytes, int64_t offset) const;

  // The same on all threads, for large ranges or many of them; not for use inside a parallel region.
  struct Range {
    void* destination;
    int64_t bytes, offset;
  };
  void read_parallel(std::span<const Range> ranges) const;
  void read_parallel(void* destination, int64_t bytes, int64_t offset) const;

  // The whole file. Error: it holds more than max_bytes.
  std::vector<uint8_t> read_all(int64_t max_bytes) const;

 private:
  File(int fd, std::string path);
  bool is_cached(int64_t offset, int64_t bytes) const;
  bool read_direct(char* destination, int64_t bytes, int64_t offset) const;
  [[noreturn]] void fail_reading(int64_t offset, int64_t expected, int64_t found, int error) const;

  int fd_ = -1;
  std::string path_;
  int64_t size_ = 0;
};

// Writes next to `path` under a temporary name. `commit` makes the bytes durable (fsync of file and folder) and gives
// them the name; without it nothing of the new file remains, and a file that was there before is untouched.
// Errors name the path and, where the disk is full, the bytes that are free.
class NewFile {
 public:
  explicit NewFile(const std::string& path);
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile();

  void write(const void* bytes, int64_t count);
  void write(std::string_view text) { write(text.data(), static_cast<int64_t>(text.size())); }
  void commit();

 private:
  [[noreturn]] void fail_writing(const char* what, int error) const;

  std::string path_, temporary_;
  int64_t written_ = 0;
  int fd_ = -1;
};

// A NewFile of these bytes, committed.
void write_file(const std::string& path, std::string_view bytes);

}  // namespace nanovlm
