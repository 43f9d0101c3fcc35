// What the decoders in data/image_<format>.cpp share. Not for use outside data/image*.cpp.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "data/image.h"

namespace nanovlm::codecs {

// A file being decoded: its bytes, and what an error needs to know about it. Reading is bounds-checked.
class Source {
 public:
  Source(std::span<const uint8_t> bytes, const std::string& where, const char* format, const ImageLimits& limits)
      : bytes_(bytes), where_(where), format_(format), limits_(limits) {}

  std::span<const uint8_t> bytes() const { return bytes_; }
  const ImageLimits& limits() const { return limits_; }

  template <class... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    throw ImageError(text(where_, ": ", format_, ": ", parts...));
  }
  template <class... Parts>
  void check(bool ok, const Parts&... parts) const {
    if (!ok) [[unlikely]]
      fail(parts...);
  }

  // `count` bytes from `offset`; an error that names `what` where the file ends before.
  std::span<const uint8_t> read(uint64_t offset, uint64_t count, const char* what) const {
    check(offset <= bytes_.size() && count <= bytes_.size() - offset, what, " takes ", count, " bytes at offset ",
          offset, ", but the file has ", bytes_.size());
    return bytes_.subspan(offset, count);
  }
  uint8_t u8(uint64_t offset, const char* what) const { return read(offset, 1, what)[0]; }
  uint16_t u16(uint64_t offset, const char* what) const;  // little endian
  uint32_t u32(uint64_t offset, const char* what) const;

  // A black picture, once its size is known to be within the limits.
  Image new_image(int64_t width, int64_t height) const;

 private:
  std::span<const uint8_t> bytes_;
  const std::string& where_;
  const char* format_;
  const ImageLimits& limits_;
};

// Colours of a palette picture: black until set, which is what Pillow takes for an index beyond the file's palette.
struct Palette {
  std::array<std::array<uint8_t, 3>, 256> rgb{};

  static Palette grey() {
    Palette p;
    for (int i = 0; i < 256; ++i) p.rgb[i].fill(static_cast<uint8_t>(i));
    return p;
  }
  // Whether the first `count` entries are the grey levels 0, 1, 2... Pillow then takes any index for a grey level.
  bool is_grey(int count) const { return std::equal(rgb.begin(), rgb.begin() + count, grey().rgb.begin()); }

  void paint(const uint8_t* indices, int64_t count, uint8_t* out) const {
    for (int64_t i = 0; i < count; ++i)
      for (int c = 0; c < 3; ++c) out[3 * i + c] = rgb[indices[i]][c];
  }
};

Image decode_jpeg(const Source& source);
Image decode_png(const Source& source);
Image decode_webp(const Source& source);
Image decode_gif(const Source& source);
Image decode_bmp(const Source& source);
Image decode_pnm(const Source& source);
Image decode_tga(const Source& source);
Image decode_tiff(const Source& source);

bool looks_like_tga(std::span<const uint8_t> bytes);  // the format has no magic number

}  // namespace nanovlm::codecs
