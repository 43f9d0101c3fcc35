// Tells the formats apart and reads files. The decoders are in data/image_<format>.cpp.
#include "data/image.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "data/image_codecs.h"
#include "engine/file.h"

namespace nanovlm {
namespace codecs {

uint16_t Source::u16(uint64_t offset, const char* what) const {
  const auto b = read(offset, 2, what);
  return static_cast<uint16_t>(b[0] | b[1] << 8);
}

uint32_t Source::u32(uint64_t offset, const char* what) const {
  return u16(offset, what) | static_cast<uint32_t>(u16(offset + 2, what)) << 16;
}

Image Source::new_image(int64_t width, int64_t height) const {
  check(width > 0 && height > 0, "size is ", width, " x ", height, ", but both sides must be positive");
  check(width <= limits_.max_side && height <= limits_.max_side, "size is ", width, " x ", height,
        ", but a side may have at most ", limits_.max_side, " pixels");
  check(width * height <= limits_.max_pixels, "size is ", width, " x ", height, ", but at most ", limits_.max_pixels,
        " pixels are allowed");
  Image image{static_cast<int>(width), static_cast<int>(height), {}};
  image.rgb.resize(static_cast<size_t>(width) * height * 3);
  return image;
}

}  // namespace codecs

namespace {

struct Format {
  const char* name;
  Image (*decode)(const codecs::Source&);
};

bool has(std::span<const uint8_t> bytes, size_t offset, std::string_view magic) {
  return bytes.size() >= offset + magic.size() && std::memcmp(bytes.data() + offset, magic.data(), magic.size()) == 0;
}

// decode is null where no format is recognised.
Format detect(std::span<const uint8_t> bytes) {
  using namespace std::string_view_literals;
  if (has(bytes, 0, "\xff\xd8\xff")) return {"JPEG", codecs::decode_jpeg};
  if (has(bytes, 0, "\x89PNG\r\n\x1a\n")) return {"PNG", codecs::decode_png};
  if (has(bytes, 0, "RIFF") && has(bytes, 8, "WEBP")) return {"WebP", codecs::decode_webp};
  if (has(bytes, 0, "GIF87a") || has(bytes, 0, "GIF89a")) return {"GIF", codecs::decode_gif};
  if (has(bytes, 0, "BM")) return {"BMP", codecs::decode_bmp};
  if (has(bytes, 0, "II*\0"sv) || has(bytes, 0, "MM\0*"sv)) return {"TIFF", codecs::decode_tiff};
  if (bytes.size() >= 3 && bytes[0] == 'P' && bytes[1] >= '1' && bytes[1] <= '6' &&
      std::strchr(" \t\n\v\f\r", bytes[2]))
    return {"PNM", codecs::decode_pnm};
  if (codecs::looks_like_tga(bytes)) return {"TGA", codecs::decode_tga};
  return {"", nullptr};
}

std::string first_bytes(std::span<const uint8_t> bytes) {
  constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (const uint8_t b : bytes.first(std::min<size_t>(bytes.size(), 8))) out += {' ', digits[b >> 4], digits[b & 15]};
  return out;
}

}  // namespace

Image decode_image(std::span<const uint8_t> bytes, const std::string& where, const ImageLimits& limits) {
  const auto check = [&](bool ok, const auto&... parts) {
    if (!ok) throw ImageError(text(where, ": ", parts...));
  };
  check(!bytes.empty(), "expected a picture, but the file is empty");
  check(static_cast<int64_t>(bytes.size()) <= limits.max_bytes, "the file has ", bytes.size(), " bytes, but at most ",
        limits.max_bytes, " are allowed");
  const Format format = detect(bytes);
  check(format.decode, "expected a JPEG, PNG, WebP, GIF, BMP, PNM, TGA or TIFF picture, but the file starts with",
        first_bytes(bytes));
  return format.decode(codecs::Source(bytes, where, format.name, limits));
}

std::string image_format(std::span<const uint8_t> bytes) { return detect(bytes).name; }

Image read_image(const std::string& path, const ImageLimits& limits) {
  std::vector<uint8_t> bytes;
  try {
    bytes = File::open(path).read_all(limits.max_bytes);
  } catch (const Error& error) {
    throw ImageError(error.what());
  }
  return decode_image(bytes, path, limits);
}

Image apply_orientation(Image image, int orientation) {
  check(orientation >= 1 && orientation <= 8, "apply_orientation: orientation is ", orientation, ", but 1 to 8 exist");
  if (orientation == 1) return image;
  // EXIF names the picture's sides that are stored as first row and first column: from 5 on, a row is stored as a
  // column.
  const bool transposed = orientation >= 5;
  const bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image out{transposed ? image.height : image.width, transposed ? image.width : image.height, {}};
  out.rgb.resize(image.rgb.size());
  uint8_t* to = out.rgb.data();
  for (int y = 0; y < out.height; ++y)
    for (int x = 0; x < out.width; ++x, to += 3) {
      const int column = transposed ? y : x, row = transposed ? x : y;
      const int64_t source_x = flip_x ? image.width - 1 - column : column;
      const int64_t source_y = flip_y ? image.height - 1 - row : row;
      std::memcpy(to, &image.rgb[static_cast<size_t>(source_y * image.width + source_x) * 3], 3);
    }
  return out;
}

}  // namespace nanovlm
