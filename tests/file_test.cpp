#include "engine/file.h"

#include <cstdio>
#include <filesystem>

#include <unistd.h>

#include "engine/error.h"
#include "tests/support/catch.h"

using namespace nanovlm;

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
