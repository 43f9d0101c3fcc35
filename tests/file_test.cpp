#include "engine/file.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/error.h"
#include "tests/support/catch.h"
#include "tests/support/folder.h"

using namespace nanovlm;

namespace {

// The share of a file's bytes that the system has cached, after it was asked to forget them where `forget` is set.
double cached_share(const std::string& path, bool forget) {
  const int fd = open(path.c_str(), O_RDONLY);
  const auto bytes = static_cast<size_t>(std::filesystem::file_size(path));
  REQUIRE(fd >= 0);
  if (forget) REQUIRE((fsync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0));
  void* const mapped = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  REQUIRE(mapped != MAP_FAILED);
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages((bytes + page - 1) / page);
  REQUIRE(mincore(mapped, bytes, pages.data()) == 0);
  munmap(mapped, bytes);
  close(fd);
  return static_cast<double>(std::count_if(pages.begin(), pages.end(), [](unsigned char p) { return p & 1; })) /
         static_cast<double>(pages.size());
}

bool can_pass_the_cache(const std::string& path, char* block) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECT);
  const bool can = fd >= 0 && pread(fd, block, File::kBlock, 0) == File::kBlock;
  if (fd >= 0) close(fd);
  return can;
}

}  // namespace

TEST_CASE("more files may be open than the soft limit says") {
  rlimit usual{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &usual) == 0);
  const rlimit low{std::min<rlim_t>(200, usual.rlim_max), usual.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
  const Folder folder;
  const std::string path = folder.write("f", "x");
  const auto open_many = [&] {
    std::vector<File> files;
    for (int i = 0; i < 300; ++i) files.push_back(File::open(path));
  };
  if (usual.rlim_max > 400) CHECK_NOTHROW(open_many());
  setrlimit(RLIMIT_NOFILE, &usual);
}

TEST_CASE("every way of reading a file gives the bytes of that place, or says that they are not there") {
  const std::string path = (std::filesystem::temp_directory_path() / text("file_test_", getpid())).string();
  std::string bytes((size_t{20} << 20) + 7, 0);  // enough for several threads
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 13);
  write_file(path, bytes);
  const File file = File::open(path);
  CHECK(file.size() == static_cast<int64_t>(bytes.size()));

  using Read = void (File::*)(void*, int64_t, int64_t) const;
  for (const Read read : {Read(&File::read), Read(&File::read_soon), Read(&File::read_parallel)})
    for (const int64_t count : {int64_t{0}, int64_t{1}, int64_t{5} << 20, file.size() - 3}) {
      CAPTURE(count);
      std::string found(static_cast<size_t>(count) + 1, '!');
      (file.*read)(found.data(), count, 3);
      CHECK(found.back() == '!');
      found.pop_back();
      CHECK(found == std::string_view(bytes).substr(3, static_cast<size_t>(count)));
      if (count > 0)
        CHECK_THROWS_WITH((file.*read)(found.data(), count, file.size() - count + 1),
                          contains(path) && contains("expected "));
    }
  std::filesystem::remove(path);
}

TEST_CASE("a read past the cache gives the same bytes, cached or not, and caches none") {
  const std::string path = (std::filesystem::temp_directory_path() / text("file_test_past_", getpid())).string();
  std::string bytes((size_t{12} << 20) + 77, 0);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 13);
  write_file(path, bytes);
  const File file = File::open(path);
  const auto room = static_cast<size_t>((file.size() + 3 * File::kBlock) / File::kBlock * File::kBlock);
  const std::unique_ptr<char, void (*)(void*)> buffer(static_cast<char*>(std::aligned_alloc(File::kBlock, room)),
                                                      std::free);
  const int64_t large = (int64_t{5} << 20) + 1;
  for (const bool forget : {false, true})
    for (const auto& [offset, count] :
         {std::pair(int64_t{0}, large), std::pair(int64_t{5}, int64_t{1000}), std::pair(int64_t{4096}, large),
          std::pair(int64_t{4095}, large), std::pair(file.size() - large, large),
          std::pair(int64_t{3}, file.size() - 3)}) {
      CAPTURE(forget, offset, count);
      const double before = cached_share(path, forget);
      const int64_t begin = file.read_past_cache(buffer.get(), count, offset);
      CHECK((begin >= 0 && begin < File::kBlock));
      CHECK(std::string_view(buffer.get() + begin, static_cast<size_t>(count)) ==
            std::string_view(bytes).substr(static_cast<size_t>(offset), static_cast<size_t>(count)));
      if (forget && count >= large) {
        if (before == 0 && can_pass_the_cache(path, buffer.get()))
          CHECK(cached_share(path, false) < 0.1);
        else
          WARN("skipped: files of this system are always cached");
      }
      CHECK_THROWS_WITH(file.read_past_cache(buffer.get(), count, file.size() - count + 1),
                        contains(path) && contains("expected "));
    }
  CHECK_THROWS_WITH(file.read_past_cache(buffer.get() + 1, 10, 0), contains("whole block"));
  std::filesystem::remove(path);
}
