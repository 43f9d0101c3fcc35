// Decoding and resizing against Pillow's own results, to the bit; damaged files against an error that names them.
#include <algorithm>
#include <cstdint>
#include <ctime>
#include <filesystem>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "data/image.h"
#include "data/resample.h"
#include "engine/file.h"
#include "engine/json.h"
#include "engine/safetensors.h"
#include "tests/support/catch.h"
#include "tests/support/memory_taken.h"
#include "tests/support/messages.h"
#include "tests/support/pictures.h"

using namespace nanovlm;
namespace fs = std::filesystem;

namespace {

const std::string kFolder = NANOVLM_FIXTURES "/images";

Bytes file_bytes(const std::string& path) { return File::open(path).read_all(1 << 20); }

Bytes expected_bytes(const SafetensorsFile& file, const std::string& name) {
  Bytes bytes(file.entry(name).bytes());
  file.read_into(name, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

void check_picture(const Image& image, const SafetensorsFile& file, const std::string& name) {
  CAPTURE(name);
  REQUIRE(file.entry(name).shape == Shape{image.height, image.width, 3});
  CHECK(image.rgb == expected_bytes(file, name));
}

// What image_to_tensor gives, as bytes [3, size, size].
Bytes tensor_bytes(const Image& image, int size) {
  std::vector<float> chw(static_cast<size_t>(3) * size * size);
  image_to_tensor(image, size, chw.data());
  Bytes bytes(chw.size());
  bool exact = true;
  for (size_t i = 0; i < chw.size(); ++i) {
    bytes[i] = static_cast<uint8_t>(chw[i] * 255 + 0.5f);
    exact = exact && chw[i] == static_cast<float>(bytes[i]) / 255.0f;
  }
  CHECK(exact);
  return bytes;
}

uint64_t fnv1a(const Bytes& bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const uint8_t b : bytes) hash = (hash ^ b) * 0x100000001b3u;
  return hash;
}

std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

Image gradient(int width, int height) {
  Image image{width, height, Bytes(static_cast<size_t>(3) * width * height)};
  for (size_t i = 0; i < image.rgb.size(); ++i) image.rgb[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
  return image;
}

struct TemporaryFolder {
  fs::path path = fs::temp_directory_path() / ("image_test." + std::to_string(::getpid()));
  TemporaryFolder() { fs::create_directory(path); }
  ~TemporaryFolder() { fs::remove_all(path); }
  std::string operator/(const std::string& name) const { return (path / name).string(); }
};

void set_big_endian(Bytes& bytes, size_t at, uint32_t value) {
  for (int i = 0; i < 4; ++i) bytes[at + i] = static_cast<uint8_t>(value >> (24 - 8 * i));
}

}  // namespace

TEST_CASE("pictures decode to Pillow's bytes") {
  const SafetensorsFile decoded = SafetensorsFile::open(kFolder + "/decoded.safetensors");
  for (const auto& [name, entry] : decoded.entries())
    check_picture(read_image(kFolder + "/files/" + name), decoded, name);
  const SafetensorsFile odd = SafetensorsFile::open(kFolder + "/odd.safetensors");
  for (const std::string& name : files_in(kFolder + "/odd"))
    check_picture(read_image(kFolder + "/odd/" + name), odd, name);
}

TEST_CASE("a picture's tensor is torchvision's Resize and ToTensor") {
  const SafetensorsFile expected = SafetensorsFile::open(kFolder + "/expected_32.safetensors");
  const nlohmann::json hashes = read_json_file(kFolder + "/hash_224.json");
  CHECK(hashes.size() == 50);
  for (const auto& [name, hash] : hashes.items()) {
    CAPTURE(name);
    const Bytes bytes = file_bytes(kFolder + "/files/" + name);
    const Image image = decode_image(bytes, name);
    CHECK(tensor_bytes(image, 32) == expected_bytes(expected, name));
    CHECK(fnv1a(tensor_bytes(image, 224)) == std::stoull(hash.get<std::string>(), nullptr, 16));
    if (expected.contains(name + ":exif_transposed")) {
      const Image upright = apply_orientation(image, exif_orientation(bytes));
      CHECK(tensor_bytes(upright, 32) == expected_bytes(expected, name + ":exif_transposed"));
    }
  }
}

TEST_CASE("resize equals Pillow's in both filters, up and down, one side or both") {
  const SafetensorsFile file = SafetensorsFile::open(kFolder + "/resized.safetensors");
  const Shape shape = file.entry("input").shape;
  const Image input{static_cast<int>(shape[1]), static_cast<int>(shape[0]), expected_bytes(file, "input")};
  for (const auto& [name, entry] : file.entries()) {
    if (name == "input") continue;
    CAPTURE(name);
    const Filter filter = name.starts_with("bicubic") ? Filter::bicubic : Filter::bilinear;
    check_picture(resize(input, static_cast<int>(entry.shape[1]), static_cast<int>(entry.shape[0]), filter), file,
                  name);
  }
}

TEST_CASE("both ways to resample give the same bytes") {
  if (!Resampler::has_byte_products()) {
    WARN("skipped: this processor has no products of bytes");
    return;
  }
  std::mt19937 random(7);
  for (const Filter filter : {Filter::bilinear, Filter::bicubic})
    for (const auto& [in, out] : {std::pair(1, 9), std::pair(9, 1), std::pair(5, 7), std::pair(640, 224),
                                  std::pair(225, 224), std::pair(63, 64), std::pair(3000, 31)}) {
      CAPTURE(in, out);
      constexpr int kRows = Resampler::kRows, kChunk = Resampler::kChunk;
      const Resampler plain(in, out, filter, false), bytes(in, out, filter, true);

      const int64_t stride = 3 * in + Resampler::kSlack;
      Bytes rows(static_cast<size_t>(kRows * stride));
      for (uint8_t& byte : rows) byte = static_cast<uint8_t>(random() % 4 == 0 ? 255 : random());
      const uint8_t* const from[kRows] = {&rows[0], &rows[stride], &rows[2 * stride], &rows[3 * stride]};
      const auto columns = [&](const Resampler& resampler) {
        const int64_t step = 3 * out + 1;
        Bytes result(static_cast<size_t>(kRows * step));
        uint8_t* const to[kRows] = {&result[0], &result[step], &result[2 * step], &result[3 * step]};
        resampler.columns(from, to);
        for (uint8_t* row : to) row[step - 1] = 0;
        return result;
      };
      CHECK(columns(plain) == columns(bytes));

      Bytes column(static_cast<size_t>(in) * kChunk);
      for (uint8_t& byte : column) byte = static_cast<uint8_t>(random());
      const auto row = [&](const Resampler& resampler, int y) {
        Bytes result(kChunk);
        resampler.row(y, &column[static_cast<size_t>(resampler.first(y)) * kChunk], kChunk, kChunk, result.data());
        return result;
      };
      for (int y = 0; y < out; ++y) CHECK(row(plain, y) == row(bytes, y));
    }
}

// Pictures of more rows than are held at a time, against all of them at once.
TEST_CASE("a tall picture is resized to the same bytes as a low one") {
  constexpr int kRows = Resampler::kRows;
  for (const auto& [in, out] : {std::pair(5000, 9), std::pair(5001, 300), std::pair(1500, 3001), std::pair(1030, 1029)})
    for (const Filter filter : {Filter::bilinear, Filter::bicubic}) {
      CAPTURE(in, out);
      constexpr int kWidth = 7, kNewWidth = 5;
      const Image image = gradient(kWidth, in);
      const Resampler columns(kWidth, kNewWidth, filter, false), rows(in, out, filter, false);
      const int64_t stride = 2 * Resampler::kChunk;
      Bytes from(static_cast<size_t>(stride)), spare(static_cast<size_t>(stride)), row(static_cast<size_t>(stride));
      Bytes plane(static_cast<size_t>(in * stride));
      for (int y = 0; y < in; ++y) {
        std::copy_n(&image.rgb[static_cast<size_t>(y) * 3 * kWidth], 3 * kWidth, from.begin());
        const uint8_t* const same[kRows] = {from.data(), from.data(), from.data(), from.data()};
        uint8_t* const to[kRows] = {&plane[static_cast<size_t>(y * stride)], spare.data(), spare.data(), spare.data()};
        columns.columns(same, to);
      }
      Bytes expected;
      for (int y = 0; y < out; ++y) {
        rows.row(y, &plane[static_cast<size_t>(rows.first(y) * stride)], stride, 3 * kNewWidth, row.data());
        expected.insert(expected.end(), row.begin(), row.begin() + 3 * kNewWidth);
      }
      CHECK(resize(image, kNewWidth, out, filter).rgb == expected);
    }
  const Image tall = gradient(1, 300'000);
  CHECK(kib_taken([&] { resize(tall, 224, 224); }) < 50'000);  // all rows at once: 206,000
}

TEST_CASE("resize keeps what it need not touch") {
  const Image image = gradient(19, 7);
  CHECK(resize(image, 19, 7).rgb == image.rgb);
  for (const auto& [width, height] : {std::pair(1, 1), std::pair(1, 33), std::pair(33, 1), std::pair(300, 2)}) {
    const Image flat{width, height, Bytes(static_cast<size_t>(3) * width * height, 201)};
    for (const Filter filter : {Filter::bilinear, Filter::bicubic}) {
      const Image out = resize(flat, 31, 5, filter);
      CHECK(std::all_of(out.rgb.begin(), out.rgb.end(), [](uint8_t v) { return v == 201; }));
    }
  }
  CHECK(message_of([&] { resize(image, 0, 5); }) == "resize: wanted size is 0 x 5, but both sides must be positive");
  CHECK(message_of([&] { resize(Image{2, 2, Bytes(5)}, 3, 3); }) == "resize: picture is 2 x 2 with 5 bytes");
}

TEST_CASE("the EXIF orientation turns a picture as exif_transpose does") {
  const SafetensorsFile odd = SafetensorsFile::open(kFolder + "/odd.safetensors");
  int seen = 0;
  for (const std::string& name : files_in(kFolder + "/odd")) {
    const Bytes bytes = file_bytes(kFolder + "/odd/" + name);
    const int orientation = exif_orientation(bytes);
    if (!name.starts_with("oriented-")) {
      CHECK(orientation == 1);
      continue;
    }
    ++seen;
    const bool turned_by_decoder = name.ends_with(".tiff");
    CHECK(orientation == (turned_by_decoder ? 1 : name[9] - '0'));
    check_picture(apply_orientation(decode_image(bytes, name), orientation), odd, name + ":upright");
  }
  CHECK(seen == 10);
  CHECK(message_of([] { apply_orientation(gradient(2, 2), 9); }) ==
        "apply_orientation: orientation is 9, but 1 to 8 exist");
}

TEST_CASE("EXIF that is cut or altered anywhere is read without harm") {
  for (const char* name :
       {"oriented-5-raw-profile.png", "oriented-6-xmp.jpeg", "oriented-8.jpeg", "oriented-6.webp", "oriented-5.png"}) {
    const Bytes whole = file_bytes(kFolder + "/odd/" + name);
    for (size_t i = 0; i < whole.size(); ++i) {
      const int cut = exif_orientation(std::span(whole).first(i));
      Bytes altered = whole;
      altered[i] ^= 0xff;
      const int other = exif_orientation(altered);
      CHECK((cut >= 1 && cut <= 8 && other >= 1 && other <= 8));
    }
  }
}

TEST_CASE("many compressed texts of a PNG cost no seconds") {
  Bytes png = encode_png(gradient(1, 1));
  for (const std::string key : {"Raw profile type exif", "XML:com.adobe.xmp"})
    for (int i = 0; i < 20'000; ++i) {
      const std::string body = key + std::string(2, '\0') + "damaged";
      const size_t at = png.size();
      png.resize(at + 12 + body.size());
      set_big_endian(png, at, static_cast<uint32_t>(body.size()));
      const std::string chunk = "zTXt" + body;
      std::copy(chunk.begin(), chunk.end(), png.begin() + static_cast<int64_t>(at) + 4);
    }
  const std::clock_t begin = std::clock();
  CHECK(exif_orientation(png) == 1);
  CHECK(std::clock() - begin < CLOCKS_PER_SEC / 2);  // a megabyte was filled for each: several seconds
}

TEST_CASE("a written PNG reads back as it was") {
  const TemporaryFolder folder;
  for (const auto& [width, height] : {std::pair(1, 1), std::pair(1, 40), std::pair(40, 1), std::pair(33, 17)}) {
    const Image image = gradient(width, height);
    write_png(folder / "a.png", image);
    const Image back = read_image(folder / "a.png");
    CHECK((back.width == width && back.height == height && back.rgb == image.rgb));
    CHECK(encode_png(image) == file_bytes(folder / "a.png"));
  }
  CHECK(message_of([&] {
          write_png(folder / "no/such/folder.png", gradient(2, 2));
        }).starts_with(folder / "no/such/folder.png"));
  CHECK(message_of([] { encode_png(Image{2, 2, {}}); }) == "encode_png: picture is 2 x 2 with 0 bytes");
}

// Cut anywhere. A file may do without what follows its last pixel: a GIF's end mark, the
// further frames of an animation, the padding of a BMP's last row.
TEST_CASE("a cut file is refused, whatever its format") {
  for (const char* folder : {"/files/", "/odd/"})
    for (const std::string& name : files_in(kFolder + folder)) {
      CAPTURE(name);
      const Bytes whole = file_bytes(kFolder + folder + name);
      const bool ends_in_text = name.starts_with("pnm-p3") || name.starts_with("pnm-p2");  // half a number is a number
      if (whole.size() > 6000 || ends_in_text) continue;
      const Image picture = decode_image(whole, name);
      size_t least = 0;  // bytes that suffice
      for (size_t size = 0; size < whole.size(); size += size < 60 || whole.size() - size < 60 ? 1 : 17) {
        const Bytes cut(whole.begin(), whole.begin() + static_cast<int64_t>(size));
        try {
          const Image image = decode_image(cut, "cut");
          CHECK(image.rgb == picture.rgb);
          if (least == 0) least = size;
        } catch (const ImageError& error) {
          CHECK(std::string(error.what()).starts_with("cut: "));
          CHECK(least == 0);
        }
      }
      const bool has_tail = name.starts_with("gif") || name.starts_with("bmp") || name.starts_with("pnm") ||
                            name.starts_with("tga") || name.starts_with("tiff") || name.ends_with(".tiff");
      if (!has_tail) CHECK(least == 0);
      if (least > 0 && name.starts_with("bmp")) CHECK(whole.size() - least <= 4);
    }
}

TEST_CASE("altered files are decoded or refused, never worse") {
  uint32_t random = 1;
  const auto next = [&](size_t n) {
    random = random * 1664525 + 1013904223;
    return (random >> 8) % n;
  };
  for (const char* folder : {"/files/", "/odd/"})
    for (const std::string& name : files_in(kFolder + folder)) {
      const Bytes whole = file_bytes(kFolder + folder + name);
      for (int i = 0; i < 30; ++i) {
        Bytes altered = whole;
        for (int k = 0; k <= i % 4; ++k)
          altered[next(i % 2 ? altered.size() : std::min<size_t>(altered.size(), 100))] ^= 1 << next(8);
        try {
          const Image image = decode_image(altered, name, {.max_pixels = 1'000'000});
          CHECK(image.rgb.size() == size_t{3} * image.width * image.height);
        } catch (const ImageError&) {
        }
      }
    }
}

TEST_CASE("what is no picture is refused by name") {
  const TemporaryFolder folder;
  const auto message = [](const std::string& path) { return message_of([&] { read_image(path); }); };
  CHECK(message(folder / "missing.png").starts_with(folder / "missing.png"));
  CHECK(message(folder.path.string()).starts_with(folder.path.string()));
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK(message(folder / "pipe").starts_with(folder / "pipe"));
  NewFile(folder / "empty.jpg").commit();
  CHECK(message(folder / "empty.jpg") == folder / "empty.jpg: expected a picture, but the file is empty");
  CHECK_THROWS_AS(read_image(folder / "missing.png"), ImageError);

  const std::string html = "<!DOCTYPE html><html></html>";
  CHECK(refusal(Bytes(html.begin(), html.end())) ==
        "the-file: expected a JPEG, PNG, WebP, GIF, BMP, PNM, TGA or TIFF picture, but the file starts with 3c 21 44 "
        "4f 43 "
        "54 59 50");
  CHECK(refusal(Bytes(1000, 0)).starts_with("the-file: expected a JPEG"));
  CHECK(refusal({0xff, 0xd8, 0xff}).starts_with("the-file: JPEG: "));
}

TEST_CASE("size limits hold before memory is asked for") {
  Bytes png = file_bytes(kFolder + "/files/png-1x1.png");
  CHECK(message_of([&] { decode_image(png, "a.png", {.max_bytes = 10}); }) ==
        text("a.png: the file has ", png.size(), " bytes, but at most 10 are allowed"));
  const Image wide = gradient(100, 10);
  const Bytes wide_png = encode_png(wide);
  CHECK(message_of([&] { decode_image(wide_png, "a.png", {.max_pixels = 999}); }) ==
        "a.png: PNG: size is 100 x 10, but at most 999 pixels are allowed");
  CHECK(message_of([&] { decode_image(wide_png, "a.png", {.max_side = 99}); }) ==
        "a.png: PNG: size is 100 x 10, but a side may have at most 99 pixels");
  CHECK(decode_image(wide_png, "a.png", {.max_pixels = 1000, .max_side = 100}).rgb == wide.rgb);

  Bytes bmp = file_bytes(kFolder + "/files/bmp-24.bmp");
  for (const uint32_t side : {0x7fffffffu, 0x80000000u, 0xffffffffu, 0u}) {  // as width and as height
    for (const size_t at : {18, 22}) {
      Bytes altered = bmp;
      for (int i = 0; i < 4; ++i) altered[at + i] = static_cast<uint8_t>(side >> 8 * i);
      if (at == 22 && side == 0xffffffffu) continue;  // -1: one row, top down
      CHECK(refusal(altered).find("size is") != std::string::npos);
    }
  }
  Bytes jpeg = file_bytes(kFolder + "/files/jpeg-444.jpg");
  const Bytes start_of_frame = {0xff, 0xc0, 0x00, 0x11, 0x08};
  const auto frame = std::search(jpeg.begin(), jpeg.end(), start_of_frame.begin(), start_of_frame.end());
  REQUIRE(frame != jpeg.end());
  for (int i = 5; i < 9; i += 2) frame[i] = 0xff, frame[i + 1] = 0xdc;  // the most that libjpeg takes
  CHECK(refusal(jpeg) == "the-file: JPEG: size is 65500 x 65500, but at most 64000000 pixels are allowed");
  Bytes gif = file_bytes(kFolder + "/files/gif.gif");
  std::fill_n(gif.begin() + 6, 4, uint8_t{0xff});
  CHECK(refusal(gif) == "the-file: GIF: size is 65535 x 65535, but at most 64000000 pixels are allowed");
}

TEST_CASE("a PNG with a wrong checksum or an impossible chunk is refused") {
  Bytes png = file_bytes(kFolder + "/files/png-rgba.png");
  Bytes altered = png;
  altered[29] ^= 1;
  CHECK(refusal(altered).find("CRC error") != std::string::npos);
  altered = png;
  altered[png.size() / 2] ^= 1;
  refusal(altered);
  altered = png;
  set_big_endian(altered, 33, 0x7fffffff);  // the chunk behind the header claims 2 GiB
  refusal(altered);
}

TEST_CASE("a JPEG with more scans than allowed is refused") {
  const Bytes whole = file_bytes(kFolder + "/files/jpeg-progressive.jpg");
  CHECK(message_of([&] { decode_image(whole, "a.jpg", {.max_scans = 3}); }) ==
        "a.jpg: JPEG: the file has more than 3 scans");
  CHECK_NOTHROW(decode_image(whole, "a.jpg"));
}
