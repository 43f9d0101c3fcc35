// GIF, the first frame. A transparent pixel keeps the colour of its palette entry, as in Pillow.
#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "data/image_codecs.h"

namespace nanovlm::codecs {
namespace {

// The bits of a chain of data blocks (a length byte, so many bytes; the length 0 ends it), least significant first.
class BlockBits {
 public:
  BlockBits(const Source& source, uint64_t position) : source_(source), position_(position) {}

  int next(int count) {
    for (; held_ < count; held_ += 8) bits_ |= static_cast<uint32_t>(next_byte()) << held_;
    const int value = static_cast<int>(bits_ & ((1u << count) - 1));
    bits_ >>= count;
    held_ -= count;
    return value;
  }

 private:
  uint8_t next_byte() {
    if (left_ == 0) {
      left_ = source_.u8(position_++, "a data block");
      source_.check(left_ > 0, "the pixel data ends at offset ", position_ - 1, ", before the last pixel");
    }
    --left_;
    return source_.u8(position_++, "pixel data");
  }

  const Source& source_;
  uint64_t position_;
  uint32_t bits_ = 0;
  int held_ = 0, left_ = 0;
};

// LZW with codes that grow from `bits` + 1 to 12 bits. Fills all of `out`.
void decompress(const Source& source, uint64_t position, int bits, std::span<uint8_t> out) {
  constexpr int max_codes = 4096;
  struct Entry {
    int16_t prefix;
    uint8_t last, first;
  };
  std::array<Entry, max_codes> table;
  const int clear = 1 << bits, end = clear + 1;
  for (int i = 0; i < clear; ++i) table[i] = {-1, static_cast<uint8_t>(i), static_cast<uint8_t>(i)};

  BlockBits codes(source, position);
  std::array<uint8_t, max_codes> string;
  int known = end + 1, size = bits + 1, previous = -1;
  for (size_t filled = 0; filled < out.size();) {
    const int code = codes.next(size);
    if (code == clear) {
      known = end + 1, size = bits + 1, previous = -1;
      continue;
    }
    source.check(code != end, "the pixel data ends after ", filled, " of ", out.size(), " pixels");
    source.check(code < known || (code == known && previous >= 0 && known < max_codes), "pixel ", filled, ": code ",
                 code, " is used before it is defined");
    // The code that is only being defined stands for the previous string and its own first pixel.
    size_t length = 0;
    if (code == known) string[length++] = table[previous].first;
    for (int c = code == known ? previous : code; c >= 0; c = table[c].prefix) string[length++] = table[c].last;
    const uint8_t first = string[length - 1];
    if (previous >= 0 && known < max_codes) {
      table[known++] = {static_cast<int16_t>(previous), first, table[previous].first};
      if (known == 1 << size && size < 12) ++size;
    }
    previous = code;
    for (; length > 0 && filled < out.size(); --length) out[filled++] = string[length - 1];
  }
}

// Rows of an interlaced frame come as every 8th from 0, every 8th from 4, every 4th from 2, every 2nd from 1.
std::vector<int> row_order(int height, bool interlaced) {
  std::vector<int> order;
  const auto add = [&](int first, int step) {
    for (int y = first; y < height; y += step) order.push_back(y);
  };
  if (!interlaced) return add(0, 1), order;
  add(0, 8), add(4, 8), add(2, 4), add(1, 2);
  return order;
}

// A palette at `position`, of the size its flag byte gives; returns the position behind it.
uint64_t read_palette(const Source& source, uint64_t position, int flags, Palette& palette) {
  if (!(flags & 0x80)) return position;
  const int count = 2 << (flags & 7);
  const auto entries = source.read(position, 3 * static_cast<uint64_t>(count), "a palette");
  palette = Palette();
  for (int i = 0; i < count; ++i) palette.rgb[i] = {entries[3 * i], entries[3 * i + 1], entries[3 * i + 2]};
  if (palette.is_grey(count)) palette = Palette::grey();
  return position + entries.size();
}

}  // namespace

Image decode_gif(const Source& source) {
  const int screen_width = source.u16(6, "the header"), screen_height = source.u16(8, "the header");
  Palette palette = Palette::grey();
  uint64_t at = read_palette(source, 13, source.u8(10, "the header"), palette);

  int background = 0;  // what is left outside the first frame
  for (;;) {
    const uint8_t kind = source.u8(at++, "a block");
    if (kind == ',') break;
    source.check(kind != ';', "expected a frame, but the file ends without one");
    if (kind != '!') continue;
    const uint8_t label = source.u8(at++, "an extension");
    for (bool first = true;; first = false) {
      const uint8_t length = source.u8(at++, "an extension");
      const auto block = source.read(at, length, "an extension");
      at += length;
      if (length == 0) break;
      if (first && label == 0xf9 && length >= 4 && (block[0] & 1)) background = block[3];
    }
  }

  const int left = source.u16(at, "a frame"), top = source.u16(at + 2, "a frame");
  const int width = source.u16(at + 4, "a frame"), height = source.u16(at + 6, "a frame");
  const int flags = source.u8(at + 8, "a frame");
  source.check(width > 0 && height > 0, "the first frame is ", width, " x ", height);
  at = read_palette(source, at + 9, flags, palette);
  const int bits = source.u8(at++, "pixel data");
  source.check(bits >= 1 && bits <= 8, "expected pixels of 1 to 8 bits, found ", bits);

  Image image = source.new_image(std::max(screen_width, left + width), std::max(screen_height, top + height));
  std::vector<uint8_t> indices(static_cast<size_t>(width) * height);
  decompress(source, at, bits, indices);
  for (size_t i = 0; i < image.rgb.size(); ++i) image.rgb[i] = palette.rgb[background][i % 3];
  const uint8_t* row = indices.data();
  for (const int y : row_order(height, flags & 0x40)) {
    palette.paint(row, width, &image.rgb[(static_cast<size_t>(top + y) * image.width + left) * 3]);
    row += width;
  }
  return image;
}

}  // namespace nanovlm::codecs
