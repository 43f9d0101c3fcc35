// Decoded pictures kept in memory and on disk.
#include "data/picture_cache.h"

#include <thread>

#include "tests/support/catch.h"
#include "tests/support/folder.h"
#include "tests/support/messages.h"

using namespace nanovlm;

namespace {
std::shared_ptr<const Image> picture(int i) {
  const auto value = static_cast<uint8_t>(i);
  return std::make_shared<const Image>(Image{20, 10, std::vector<uint8_t>(600, value)});
}

int found(const PictureCache& cache, int pictures) {
  int n = 0;
  for (int i = 0; i < pictures; ++i) {
    const auto kept = cache.find(std::to_string(i));
    if (!kept) continue;
    ++n;
    CHECK(kept->width == 20);
    CHECK(kept->height == 10);
    CHECK(kept->rgb == picture(i)->rgb);
  }
  return n;
}
}  // namespace

TEST_CASE("memory keeps the first pictures that fit") {
  PictureCache cache(8200);
  for (int i = 0; i < 100; ++i) cache.keep(std::to_string(i), picture(i));
  CHECK(found(cache, 100) == 10);
  CHECK(cache.find("0"));
  cache.keep("0", picture(7));
  CHECK(cache.find("0")->rgb == picture(0)->rgb);
  CHECK(found(PictureCache(0), 100) == 0);
}

TEST_CASE("a folder keeps the others, and nothing remains in it") {
  const Folder folder;
  {
    PictureCache cache(8200, folder.path());
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&cache] {
        for (int i = 0; i < 200; ++i) {
          if (!cache.find(std::to_string(i))) cache.keep(std::to_string(i), picture(i));
        }
      });
    for (auto& thread : threads) thread.join();
    CHECK(found(cache, 200) == 200);
  }
  CHECK(std::filesystem::is_empty(folder.path()));
  CHECK(message_of([&] { PictureCache(0, folder.file("gone")); }) ==
        folder.file("gone") + ": can't hold decoded pictures: No such file or directory");
}
