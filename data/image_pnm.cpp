// Portable bitmaps, grey maps and pixmaps, written as text (P1 to P3) or as bytes (P4 to P6).
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "data/image_codecs.h"

namespace nanovlm::codecs {
namespace {

class Text {
 public:
  Text(const Source& source, uint64_t position) : source_(source), position_(position) {}

  // The next decimal number, at most `max`. Blanks and comments before it and one blank behind it are consumed.
  int64_t number(int64_t max, const char* what) {
    skip_blanks(what);
    int64_t value = 0;
    bool any = false;
    for (; position_ < source_.bytes().size() && !std::isspace(source_.bytes()[position_]); ++position_, any = true) {
      const uint8_t c = source_.bytes()[position_];
      if (c == '#') break;
      source_.check(std::isdigit(c), what, ": expected a decimal digit at offset ", position_, ", found byte ", int{c});
      value = value * 10 + (c - '0');
      source_.check(value <= max, what, " at offset ", position_, " is more than ", max);
    }
    source_.check(any, what, ": expected a number at offset ", position_, ", found none");
    if (position_ < source_.bytes().size() && source_.bytes()[position_] != '#') ++position_;
    return value;
  }

  // The next 0 or 1; blanks between them are optional.
  bool bit() {
    skip_blanks("pixel data");
    const uint8_t c = source_.u8(position_++, "pixel data");
    source_.check(c == '0' || c == '1', "pixel data: expected 0 or 1 at offset ", position_ - 1, ", found byte ",
                  int{c});
    return c == '1';
  }

  uint64_t position() const { return position_; }

 private:
  void skip_blanks(const char* what) {
    for (;; ++position_) {
      const uint8_t c = source_.u8(position_, what);
      if (c == '#')
        while (source_.u8(position_, what) != '\n' && source_.u8(position_, what) != '\r') ++position_;
      else if (!std::isspace(c))
        return;
    }
  }

  const Source& source_;
  uint64_t position_;
};

// Pillow turns grey maps with more than 8 bits into 16 bits and then clips at 255; pixmaps it scales to 8 bits.
// Rounds halves to even.
uint8_t to_byte(int64_t value, int64_t max, bool colour) {
  const double full = !colour && max > 255 ? 65535 : 255;
  return static_cast<uint8_t>(
      std::min(std::nearbyint(static_cast<double>(value) / static_cast<double>(max) * full), 255.0));
}

}  // namespace

Image decode_pnm(const Source& source) {
  const int kind = source.u8(1, "the header") - '0';
  const bool plain = kind <= 3, bitmap = kind == 1 || kind == 4, colour = kind == 3 || kind == 6;
  Text header(source, 2);
  constexpr int64_t max_side = INT32_MAX;
  const int64_t width = header.number(max_side, "the width"), height = header.number(max_side, "the height");
  const int64_t max = bitmap ? 1 : header.number(65535, "the highest value");
  source.check(max > 0, "the highest value is 0");
  Image image = source.new_image(width, height);
  const int64_t channels = colour ? 3 : 1, samples = width * height * channels, repeat = colour ? 1 : 3;

  if (plain) {
    Text values(source, header.position());
    for (int64_t i = 0; i < samples; ++i) {
      const uint8_t byte = bitmap ? (values.bit() ? 0 : 255) : to_byte(values.number(max, "a pixel"), max, colour);
      std::memset(&image.rgb[i * repeat], byte, repeat);
    }
    return image;
  }
  const int64_t row_bytes = bitmap ? (width + 7) / 8 : width * channels * (max > 255 ? 2 : 1);
  const auto pixels = source.read(header.position(), row_bytes * height, "pixel data");
  for (int64_t i = 0; i < samples; ++i) {
    uint8_t byte;
    if (bitmap)
      byte = pixels[i / width * row_bytes + i % width / 8] >> (7 - i % width % 8) & 1 ? 0 : 255;
    else
      byte = to_byte(max > 255 ? pixels[2 * i] << 8 | pixels[2 * i + 1] : pixels[i], max, colour);
    std::memset(&image.rgb[i * repeat], byte, repeat);
  }
  return image;
}

}  // namespace nanovlm::codecs
