// Windows and OS/2 bitmaps: 1, 4 and 8 bits with a palette (plain or run-length coded), 16, 24 and 32 bits.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#include "data/image_codecs.h"

namespace nanovlm::codecs {
namespace {

enum Compression : uint32_t { kPlain = 0, kRle8 = 1, kRle4 = 2, kBitFields = 3 };

struct Header {
  int64_t width, height;
  bool top_down;
  int bits;
  uint32_t compression, colours;
  uint64_t palette, palette_entry;  // offset in the file, bytes an entry
  uint64_t pixels;                  // offset in the file
  uint32_t masks[3];                // of red, green and blue in a 16-, 24- or 32-bit pixel
};

void read_masks(const Source& source, Header& h, uint32_t header_size) {
  if (h.compression != kBitFields) {
    const bool high = h.bits == 16;
    h.masks[0] = high ? 0x7c00 : 0xff0000, h.masks[1] = high ? 0x3e0 : 0xff00, h.masks[2] = high ? 0x1f : 0xff;
    return;
  }
  for (int c = 0; c < 3; ++c) h.masks[c] = source.u32(54 + 4 * c, "the colour masks");
  if (header_size == 40) h.palette += 12;  // the masks follow this header, and are part of the later ones
  if (h.bits == 32 && !(h.masks[0] | h.masks[1] | h.masks[2]))
    h.masks[0] = 0xff0000, h.masks[1] = 0xff00, h.masks[2] = 0xff;
  for (const uint32_t mask : h.masks) {
    const uint32_t run = mask >> (std::countr_zero(mask) & 31);
    source.check(h.bits >= 16 && mask != 0 && (run & (run + 1)) == 0 && run <= 0xffff,
                 "expected a colour mask of 1 to 16 adjacent bits, found ", mask);
  }
}

Header read_header(const Source& source) {
  Header h{};
  const uint32_t size = source.u32(14, "the header");
  const auto known = {12u, 40u, 52u, 56u, 64u, 108u, 124u};
  source.check(std::find(known.begin(), known.end(), size) != known.end(),
               "expected a header of 12, 40, 52, 56, 64, 108 or 124 bytes, found ", size);
  source.read(14, size, "the header");
  h.pixels = source.u32(10, "the header");
  h.palette = 14 + size;
  h.palette_entry = size == 12 ? 3 : 4;
  if (size == 12) {
    h.width = source.u16(18, "the header"), h.height = source.u16(20, "the header"),
    h.bits = source.u16(24, "the header");
  } else {
    h.width = source.u32(18, "the header");
    h.height = static_cast<int32_t>(source.u32(22, "the header"));
    h.bits = source.u16(28, "the header");
    h.compression = source.u32(30, "the header");
    h.colours = source.u32(46, "the header");
    h.top_down = h.height < 0;
    h.height = std::abs(h.height);
  }
  const auto depths = {1, 4, 8, 16, 24, 32};
  source.check(std::find(depths.begin(), depths.end(), h.bits) != depths.end(),
               "expected 1, 4, 8, 16, 24 or 32 bits a pixel, found ", h.bits);
  const bool matches = h.compression == kPlain || (h.compression == kRle8 && h.bits == 8) ||
                       (h.compression == kRle4 && h.bits == 4) || (h.compression == kBitFields && h.bits >= 16);
  source.check(matches, "compression ", h.compression, " of ", h.bits, "-bit pixels is not supported");
  if (h.colours == 0) h.colours = 1u << std::min(h.bits, 8);
  read_masks(source, h, size);
  if (h.pixels == 0) h.pixels = h.palette + (h.bits <= 8 ? h.palette_entry * h.colours : 0);
  // Some writers leave the palette out of the offset of the pixels.
  else if (h.pixels == h.palette && h.bits <= 8)
    h.pixels += 4 * uint64_t{h.colours};
  return h;
}

Palette read_palette(const Source& source, const Header& h) {
  source.check(h.colours <= 256, "expected a palette of at most 256 colours, found ", h.colours);
  const auto entries = source.read(h.palette, h.palette_entry * h.colours, "the palette");
  Palette palette;
  for (uint32_t i = 0; i < h.colours; ++i) {
    const uint8_t* bgr = &entries[i * h.palette_entry];
    palette.rgb[i] = {bgr[2], bgr[1], bgr[0]};
  }
  return palette.is_grey(static_cast<int>(h.colours)) ? Palette::grey() : palette;
}

// The indices of a run-length coded picture, rows in file order. What the codes leave out stays 0.
std::vector<uint8_t> run_lengths(const Source& source, const Header& h) {
  const int64_t total = h.width * h.height;
  std::vector<uint8_t> out(static_cast<size_t>(total));
  const bool nibbles = h.compression == kRle4;
  uint64_t at = h.pixels;
  int64_t filled = 0, x = 0;  // a run is cut at the end of its row, also where the row was not ended by a code
  const auto value_of = [&](uint8_t byte, int64_t i) { return nibbles ? (i % 2 ? byte & 15 : byte >> 4) : byte; };
  while (filled < total) {
    const uint8_t count = source.u8(at, "pixel data"), value = source.u8(at + 1, "pixel data");
    at += 2;
    if (count > 0) {
      const int64_t n = std::min({int64_t{count}, std::max<int64_t>(h.width - x, 0), total - filled});
      for (int64_t i = 0; i < n; ++i) out[filled + i] = value_of(value, i);
      filled += n, x += n;
    } else if (value == 0) {
      filled = (filled + h.width - 1) / h.width * h.width, x = 0;
    } else if (value == 1) {
      break;
    } else if (value == 2) {
      filled += source.u8(at, "pixel data") + source.u8(at + 1, "pixel data") * h.width;
      at += 2, x = filled % h.width;
    } else {
      const int64_t bytes = nibbles ? (value + 1) / 2 : value;
      const auto literal = source.read(at, bytes, "pixel data");
      for (int64_t i = 0; i < std::min<int64_t>(value, total - filled); ++i)
        out[filled + i] = value_of(literal[nibbles ? i / 2 : i], i);
      filled += value, x += value;
      at += bytes + bytes % 2;  // padded to 16 bits
    }
  }
  return out;
}

void unpack_indices(const uint8_t* row, int64_t width, int bits, uint8_t* out) {
  for (int64_t x = 0; x < width; ++x) {
    const int64_t bit = x * bits;
    out[x] = static_cast<uint8_t>(row[bit / 8] >> (8 - bits - bit % 8) & ((1 << bits) - 1));
  }
}

void unpack_colours(const uint8_t* row, const Header& h, uint8_t* rgb) {
  const int bytes = h.bits / 8;
  for (int64_t x = 0; x < h.width; ++x) {
    uint32_t pixel = 0;
    std::memcpy(&pixel, row + x * bytes, bytes);
    for (int c = 0; c < 3; ++c) {
      const int shift = std::countr_zero(h.masks[c]);
      rgb[3 * x + c] = static_cast<uint8_t>(((pixel & h.masks[c]) >> shift) * 255 / (h.masks[c] >> shift));
    }
  }
}

}  // namespace

Image decode_bmp(const Source& source) {
  const Header h = read_header(source);
  Image image = source.new_image(h.width, h.height);
  const Palette palette = h.bits <= 8 ? read_palette(source, h) : Palette();
  const auto row_of = [&](int64_t y) { return &image.rgb[(h.top_down ? y : h.height - 1 - y) * h.width * 3]; };

  if (h.compression == kRle8 || h.compression == kRle4) {
    const std::vector<uint8_t> indices = run_lengths(source, h);
    for (int64_t y = 0; y < h.height; ++y) palette.paint(&indices[y * h.width], h.width, row_of(y));
    return image;
  }
  const int64_t stride = (h.width * h.bits + 31) / 32 * 4;
  // The padding behind the last row may be missing.
  const int64_t total = stride * (h.height - 1) + (h.width * h.bits + 7) / 8;
  const auto pixels = source.read(h.pixels, static_cast<uint64_t>(total), "pixel data");
  std::vector<uint8_t> indices(h.bits <= 8 ? h.width : 0);
  for (int64_t y = 0; y < h.height; ++y) {
    const uint8_t* row = &pixels[y * stride];
    if (h.bits > 8) {
      unpack_colours(row, h, row_of(y));
    } else {
      unpack_indices(row, h.width, h.bits, indices.data());
      palette.paint(indices.data(), h.width, row_of(y));
    }
  }
  return image;
}

}  // namespace nanovlm::codecs
