// Targa: palette, grey (with alpha) and true-colour pictures, plain or run-length coded.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "data/image_codecs.h"

namespace nanovlm::codecs {
namespace {

enum Kind { kIndexed = 1, kColour = 2, kGrey = 3 };

struct Header {
  int palette_first = 0, palette_count = 0, palette_bits = 0;
  int kind = 0, bits = 0, width = 0, height = 0;
  bool run_lengths = false, right_to_left = false, top_down = false;
  uint64_t palette = 0, pixels = 0;  // offsets in the file
};

// Blue, green and red of 5 bits each, or of a byte each.
void read_colour(const uint8_t* in, int bits, uint8_t* rgb) {
  const int word = in[0] | in[1] << 8;
  for (int c = 0; c < 3; ++c)
    rgb[c] = bits == 16 ? static_cast<uint8_t>((word >> (10 - 5 * c) & 31) * 255 / 31) : in[2 - c];
}

bool valid(int kind, int bits) {
  if (kind == kIndexed) return bits == 8;
  if (kind == kColour) return bits == 16 || bits == 24 || bits == 32;
  return kind == kGrey && (bits == 8 || bits == 16);
}

Header read_header(const Source& source) {
  const auto h = source.read(0, 18, "the header");
  const auto word = [&](int at) { return h[at] | h[at + 1] << 8; };
  Header out;
  out.palette_first = word(3), out.palette_count = h[1] ? word(5) : 0, out.palette_bits = h[7];
  out.kind = h[2] & 7, out.run_lengths = h[2] & 8, out.bits = h[16];
  out.width = word(12), out.height = word(14);
  out.right_to_left = h[17] & 0x10, out.top_down = h[17] & 0x20;
  out.palette = 18 + uint64_t{h[0]};
  const auto known = {0, 16, 24, 32};
  source.check(out.palette_count == 0 || std::find(known.begin(), known.end(), out.palette_bits) != known.end(),
               "expected palette entries of 16, 24 or 32 bits, found ", out.palette_bits);
  out.pixels = out.palette + static_cast<uint64_t>(out.palette_count) * (out.palette_bits / 8);
  return out;
}

Palette read_palette(const Source& source, const Header& h) {
  if (h.palette_count == 0) return Palette::grey();
  Palette palette;
  const int bytes = h.palette_bits / 8;
  source.check(bytes > 0 && h.palette_first + h.palette_count <= 256, "expected a palette within 256 entries, found ",
               h.palette_count, " from ", h.palette_first);
  const auto entries = source.read(h.palette, static_cast<uint64_t>(h.palette_count) * bytes, "the palette");
  for (int i = 0; i < h.palette_count; ++i)
    read_colour(&entries[static_cast<size_t>(i) * bytes], h.palette_bits, palette.rgb[h.palette_first + i].data());
  return palette;
}

// Packets of up to 128 pixels: one repeated, or as they are.
std::vector<uint8_t> expand(const Source& source, uint64_t at, size_t pixel_bytes, size_t total) {
  std::vector<uint8_t> out(total);
  for (size_t filled = 0; filled < total;) {
    const uint8_t head = source.u8(at++, "pixel data");
    const bool repeated = head & 0x80;
    const size_t count = std::min<size_t>(((head & 0x7f) + 1) * pixel_bytes, total - filled);
    const auto from = source.read(at, repeated ? pixel_bytes : count, "pixel data");
    for (size_t i = 0; i < count; ++i) out[filled + i] = from[repeated ? i % pixel_bytes : i];
    at += from.size();
    filled += count;
  }
  return out;
}

}  // namespace

bool looks_like_tga(std::span<const uint8_t> bytes) {
  if (bytes.size() < 18 || bytes[1] > 1 || (bytes[2] & ~(8 | 3)) != 0) return false;
  const bool sized = (bytes[12] | bytes[13]) && (bytes[14] | bytes[15]);
  return sized && valid(bytes[2] & 3, bytes[16]) && (bytes[17] & 0xc0) == 0;
}

Image decode_tga(const Source& source) {
  const Header h = read_header(source);
  source.check(valid(h.kind, h.bits), "kind ", h.kind, " with ", h.bits, " bits a pixel is not supported");
  Image image = source.new_image(h.width, h.height);
  const Palette palette = read_palette(source, h);
  const size_t pixel_bytes = h.bits / 8, total = image.rgb.size() / 3 * pixel_bytes;
  std::vector<uint8_t> expanded;
  if (h.run_lengths) expanded = expand(source, h.pixels, pixel_bytes, total);
  const uint8_t* in = h.run_lengths ? expanded.data() : source.read(h.pixels, total, "pixel data").data();

  for (int row = 0; row < h.height; ++row)
    for (int column = 0; column < h.width; ++column, in += pixel_bytes) {
      const int64_t y = h.top_down ? row : h.height - 1 - row, x = h.right_to_left ? h.width - 1 - column : column;
      uint8_t* rgb = &image.rgb[(y * h.width + x) * 3];
      if (h.kind == kColour)
        read_colour(in, h.bits, rgb);
      else if (h.kind == kGrey)
        std::memset(rgb, in[0], 3);
      else
        palette.paint(in, 1, rgb);
    }
  return image;
}

}  // namespace nanovlm::codecs
