// TIFF's settings and limits, on files made here; what Pillow reads of whole files is in image_test.
#include <cstdint>
#include <utility>
#include <vector>

#include "data/image.h"
#include "tests/support/catch.h"
#include "tests/support/memory_taken.h"
#include "tests/support/pictures.h"

using namespace nanovlm;

namespace {

// A little-endian TIFF of one strip right behind the header. Every tag's values are 16-bit.
Bytes tiff(int width, int height, const std::vector<std::pair<int, std::vector<int>>>& tags, const Bytes& strip) {
  Bytes file = {'I', 'I', 42, 0};
  const auto u16 = [](Bytes& to, int v) {
    to.insert(to.end(), {static_cast<uint8_t>(v), static_cast<uint8_t>(v >> 8)});
  };
  std::vector<std::pair<int, std::vector<int>>> all = {
      {256, {width}}, {257, {height}}, {273, {8}}, {278, {height}}, {279, {static_cast<int>(strip.size())}}};
  all.insert(all.end(), tags.begin(), tags.end());
  const size_t directory = 8 + strip.size(), values_at = directory + 2 + 12 * all.size() + 4;
  u16(file, static_cast<int>(directory)), u16(file, static_cast<int>(directory >> 16));
  file.insert(file.end(), strip.begin(), strip.end());
  Bytes values;
  u16(file, static_cast<int>(all.size()));
  for (const auto& [tag, given] : all) {
    u16(file, tag), u16(file, 3), u16(file, static_cast<int>(given.size())), u16(file, 0);
    Bytes own;
    for (const int v : given) u16(own, v);
    const bool inside = own.size() <= 4;
    if (!inside) {
      const size_t at = values_at + values.size();
      values.insert(values.end(), own.begin(), own.end());
      own = {};
      u16(own, static_cast<int>(at)), u16(own, static_cast<int>(at >> 16));
    }
    own.resize(4);
    file.insert(file.end(), own.begin(), own.end());
  }
  file.resize(file.size() + 4);  // no further directory
  file.insert(file.end(), values.begin(), values.end());
  return file;
}

}  // namespace

TEST_CASE("a TIFF's fill order, sample format and depths mean what they mean to Pillow") {
  // The first channel of every pixel.
  const auto decoded = [](int width, const std::vector<std::pair<int, std::vector<int>>>& tags, const Bytes& strip) {
    const Image image = decode_image(tiff(width, 1, tags, strip), "a.tiff");
    Bytes reds;
    for (size_t i = 0; i < image.rgb.size(); i += 3) reds.push_back(image.rgb[i]);
    return reds;
  };
  using Reds = Bytes;
  constexpr int kBits = 258, kPacking = 259, kPhotometric = 262, kFill = 266, kSamples = 277, kFormat = 339;
  CHECK(decoded(8, {{kPhotometric, {1}}, {kFill, {1}}}, {0b11010000}) == Reds{255, 255, 0, 255, 0, 0, 0, 0});
  CHECK(decoded(8, {{kPhotometric, {1}}, {kFill, {2}}}, {0b11010000}) == Reds{0, 0, 0, 0, 255, 0, 255, 255});
  CHECK(decoded(2, {{kBits, {8}}, {kPhotometric, {1}}, {kFill, {2}}}, {1, 3}) == Reds{128, 192});
  // Packed: what is mirrored is what the file holds, -1 and 7.
  CHECK(decoded(2, {{kBits, {8}}, {kPacking, {32773}}, {kPhotometric, {1}}, {kFill, {2}}}, {255, 224}) == Reds{7, 7});

  const Bytes words = {5, 0, 0, 1, 255, 255};  // 5, 256 and 65535 or -1
  CHECK(decoded(3, {{kBits, {16}}, {kPhotometric, {1}}}, words) == Reds{5, 255, 255});
  CHECK(decoded(3, {{kBits, {16}}, {kPhotometric, {0}}}, words) == Reds{5, 255, 255});
  CHECK(decoded(3, {{kBits, {16}}, {kPhotometric, {1}}, {kFormat, {2}}}, words) == Reds{5, 255, 0});
  CHECK(decoded(2, {{kBits, {8}}, {kPhotometric, {0}}}, {5, 255}) == Reds{250, 0});
  CHECK(decoded(2, {{kBits, {8}}, {kPhotometric, {1}}, {kFormat, {2}}}, {5, 255}) == Reds{5, 255});

  const auto refused = [](const std::vector<std::pair<int, std::vector<int>>>& tags) {
    return refusal(tiff(1, 1, tags, Bytes(8)));
  };
  CHECK(refused({{kBits, {16}}, {kPhotometric, {1}}, {kFormat, {3}}}) ==
        "the-file: TIFF: sample format 3 of 1 samples of 16 bits is not supported");
  CHECK(refused({{kBits, {16}}, {kPhotometric, {0}}, {kFormat, {2}}}) ==
        "the-file: TIFF: sample format 2 of 1 samples of 16 bits is not supported");
  CHECK(refused({{kBits, {8, 8, 16}}, {kPhotometric, {2}}, {kSamples, {3}}}) ==
        "the-file: TIFF: bits per sample of 8 and 16 in one pixel are not supported");
  CHECK(refused({{kBits, {8, 8}}, {kPhotometric, {2}}, {kSamples, {3}}}) ==
        "the-file: TIFF: expected 3 bits per sample, found 2");
  CHECK(refused({{kBits, {8}}, {kPhotometric, {1}}, {kFill, {3}}}) ==
        "the-file: TIFF: expected fill order 1 or 2, found 3");
}

TEST_CASE("tags that name the same bytes of a TIFF cost no memory") {
  constexpr int kTags = 600, kCount = 100'000;
  Bytes file = tiff(1, 1, {{258, {8}}, {262, {1}}}, Bytes(2 * kCount));
  // A directory of the old entries and of others, all over the strip.
  const size_t old = 8 + 2 * kCount, at = file.size();
  for (int i = 0; i < 4; ++i) file[4 + i] = static_cast<uint8_t>(at >> 8 * i);
  const int entries = file[old] + kTags;
  file.insert(file.end(), {static_cast<uint8_t>(entries), static_cast<uint8_t>(entries >> 8)});
  const Bytes kept(file.begin() + static_cast<int64_t>(old) + 2,
                   file.begin() + static_cast<int64_t>(old) + 2 + 12 * file[old]);
  file.insert(file.end(), kept.begin(), kept.end());
  for (int i = 0; i < kTags; ++i)
    for (const uint32_t word : {uint32_t{3} << 16 | (1000u + i), uint32_t{kCount}, uint32_t{8}})
      for (int b = 0; b < 4; ++b) file.push_back(static_cast<uint8_t>(word >> 8 * b));
  // Widened to 32 bits, the values take 240,000.
  CHECK(kib_taken([&] { CHECK(decode_image(file, "a.tiff").rgb == Bytes(3)); }) < 50'000);
}
