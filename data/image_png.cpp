// PNG through libpng: reading, and writing RGB.
#include <algorithm>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <vector>

#include <png.h>

#include "data/image_codecs.h"
#include "engine/file.h"

namespace nanovlm {
namespace codecs {
namespace {

// Data behind the last row is no part of the picture. Metadata that nothing here uses is skipped unread, so any other
// warning is about the picture itself.
bool harmless(std::string_view message) {
  return message.ends_with("Too much image data") || message.ends_with("Extra compressed data");
}

// The library reports an error by a longjmp back into guarded(), so what runs there must own nothing.
class PngReader {
 public:
  explicit PngReader(std::span<const uint8_t> bytes) : bytes_(bytes) {
    png = png_create_read_struct(
        PNG_LIBPNG_VER_STRING, this, [](png_structp p, png_const_charp m) { of(png_get_error_ptr(p)).give_up(m); },
        [](png_structp p, png_const_charp m) {
          if (!harmless(m)) of(png_get_error_ptr(p)).give_up(m);
        });
    if (png) info = png_create_info_struct(png);
  }
  ~PngReader() { png_destroy_read_struct(&png, &info, nullptr); }
  PngReader(const PngReader&) = delete;

  template <class F>
  void guarded(const Source& source, const F& f) {
    if (setjmp(jump_) != 0) source.fail(message_, ", at offset ", position_, " of ", bytes_.size());
    f();
  }

  void read_header(const ImageLimits& limits) {
    constexpr png_alloc_size_t max_chunk = 32 << 20;
    png_set_read_fn(png, this, [](png_structp p, png_bytep to, size_t n) { of(png_get_io_ptr(p)).take(to, n); });
    png_set_user_limits(png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // new_image() says it better
    png_set_chunk_malloc_max(png,
                             std::min<png_alloc_size_t>(max_chunk, static_cast<png_alloc_size_t>(limits.max_bytes)));
    png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, reinterpret_cast<png_const_bytep>("tRNS\0pHYs"), 2);
    png_set_check_for_invalid_index(png, 0);
    png_read_info(png, info);
  }

  png_structp png = nullptr;
  png_infop info = nullptr;

 private:
  static PngReader& of(png_voidp self) { return *static_cast<PngReader*>(self); }

  [[noreturn]] void give_up(const char* message) {
    std::snprintf(message_, sizeof message_, "%s", message);
    std::longjmp(jump_, 1);
  }
  void take(uint8_t* to, size_t count) {
    if (count > bytes_.size() - position_) give_up("the file is cut");
    std::memcpy(to, bytes_.data() + position_, count);
    position_ += count;
  }

  std::span<const uint8_t> bytes_;
  size_t position_ = 0;
  std::jmp_buf jump_;
  char message_[256] = "";
};

}  // namespace

Image decode_png(const Source& source) {
  PngReader reader(source.bytes());
  source.check(reader.png && reader.info, "out of memory");
  png_structp png = reader.png;
  reader.guarded(source, [&] { reader.read_header(source.limits()); });

  Image image = source.new_image(png_get_image_width(png, reader.info), png_get_image_height(png, reader.info));
  const int depth = png_get_bit_depth(png, reader.info), colour = png_get_color_type(png, reader.info);
  const bool indexed = colour == PNG_COLOR_TYPE_PALETTE, grey16 = colour == PNG_COLOR_TYPE_GRAY && depth == 16;
  const size_t pixel_bytes = indexed ? 1 : grey16 ? 2 : 3, pixels = image.rgb.size() / 3;
  std::vector<uint8_t> narrow(pixel_bytes < 3 ? pixels * pixel_bytes : 0);
  std::vector<uint8_t*> rows(image.height);
  for (int y = 0; y < image.height; ++y)
    rows[y] = (pixel_bytes < 3 ? narrow : image.rgb).data() + static_cast<size_t>(y) * image.width * pixel_bytes;

  reader.guarded(source, [&] {
    if (indexed) png_set_packing(png);
    if (!indexed && !grey16) {
      png_set_strip_16(png);
      png_set_strip_alpha(png);
      png_set_expand_gray_1_2_4_to_8(png);
      png_set_gray_to_rgb(png);
    }
    png_set_interlace_handling(png);
    png_read_update_info(png, reader.info);
    if (png_get_rowbytes(png, reader.info) != image.width * pixel_bytes) png_error(png, "unexpected row size");
    png_read_image(png, rows.data());
    png_read_end(png, nullptr);
  });

  if (indexed) {
    png_colorp entries = nullptr;
    int count = 0;
    png_get_PLTE(png, reader.info, &entries, &count);
    Palette palette;
    for (int i = 0; i < count; ++i) palette.rgb[i] = {entries[i].red, entries[i].green, entries[i].blue};
    palette.paint(narrow.data(), static_cast<int64_t>(pixels), image.rgb.data());
  } else if (grey16) {
    // Pillow clips at 255 where one would expect the high byte.
    for (size_t i = 0; i < pixels; ++i) std::memset(&image.rgb[3 * i], narrow[2 * i] != 0 ? 255 : narrow[2 * i + 1], 3);
  }
  return image;
}

}  // namespace codecs

namespace {

struct PngWriter {
  PngWriter() {
    png = png_create_write_struct(
        PNG_LIBPNG_VER_STRING, this,
        [](png_structp p, png_const_charp m) {
          auto& self = *static_cast<PngWriter*>(png_get_error_ptr(p));
          std::snprintf(self.message, sizeof self.message, "%s", m);
          std::longjmp(self.jump, 1);
        },
        [](png_structp, png_const_charp) {});
    if (png) info = png_create_info_struct(png);
  }
  ~PngWriter() { png_destroy_write_struct(&png, &info); }
  PngWriter(const PngWriter&) = delete;

  png_structp png = nullptr;
  png_infop info = nullptr;
  std::jmp_buf jump;
  char message[256] = "";
};

}  // namespace

std::vector<uint8_t> encode_png(const Image& image) {
  check(image.width > 0 && image.height > 0 && image.rgb.size() == size_t{3} * image.width * image.height,
        "encode_png: picture is ", image.width, " x ", image.height, " with ", image.rgb.size(), " bytes");
  PngWriter writer;
  check(writer.png && writer.info, "encode_png: out of memory");
  std::vector<uint8_t> out;
  std::vector<const uint8_t*> rows(image.height);
  for (int y = 0; y < image.height; ++y) rows[y] = image.rgb.data() + static_cast<size_t>(y) * image.width * 3;
  const auto append = [](png_structp p, png_bytep from, size_t count) {
    auto& to = *static_cast<std::vector<uint8_t>*>(png_get_io_ptr(p));
    to.insert(to.end(), from, from + count);
  };

  if (setjmp(writer.jump) != 0) fail("encode_png: ", writer.message);
  png_set_write_fn(writer.png, &out, append, nullptr);
  png_set_IHDR(writer.png, writer.info, image.width, image.height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_write_info(writer.png, writer.info);
  png_write_image(writer.png, const_cast<png_bytepp>(rows.data()));
  png_write_end(writer.png, nullptr);
  return out;
}

void write_png(const std::string& path, const Image& image) {
  const std::vector<uint8_t> bytes = encode_png(image);
  NewFile file(path);
  file.write(bytes.data(), static_cast<int64_t>(bytes.size()));
  file.commit();
}

}  // namespace nanovlm
