// TIFF, the first picture: strips of chunky 1-, 8- or 16-bit samples, plain or packed by PackBits, LZW or Deflate.
// Unlike the other formats it is turned upright here, because Pillow does so too.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

#include <zlib.h>

#include "data/image_codecs.h"

namespace nanovlm::codecs {
namespace {

enum Tag : uint16_t {
  kWidth = 256,
  kHeight = 257,
  kBits = 258,
  kCompression = 259,
  kPhotometric = 262,
  kFillOrder = 266,
  kStripOffsets = 273,
  kOrientation = 274,
  kSamples = 277,
  kRowsPerStrip = 278,
  kStripBytes = 279,
  kPlanar = 284,
  kPredictor = 317,
  kColours = 320,
  kTileWidth = 322,
  kExtraSamples = 338,
  kSampleFormat = 339
};
enum Compression : uint32_t { kPlain = 1, kLzw = 5, kDeflate = 8, kPackBits = 32773, kOldDeflate = 32946 };
enum Photometric : uint32_t { kWhiteIsZero = 0, kBlackIsZero = 1, kRgb = 2, kPalette = 3 };

// The file's integers, in its byte order.
struct Integers {
  const Source* source;
  bool big_endian;

  uint16_t u16(uint64_t at) const {
    const uint16_t v = source->u16(at, "a directory");
    return big_endian ? __builtin_bswap16(v) : v;
  }
  uint32_t u32(uint64_t at) const {
    const uint32_t v = source->u32(at, "a directory");
    return big_endian ? __builtin_bswap32(v) : v;
  }
};

// The values of a tag, each widened to 32 bits when it is asked for: a small file may name the same bytes in many tags.
// They are inside the file.
struct Values {
  Integers file;
  uint64_t from, count;
  int bytes;  // of a value

  uint64_t size() const { return count; }
  uint32_t operator[](uint64_t i) const {
    const uint64_t at = from + i * bytes;
    return bytes == 1 ? file.source->u8(at, "a tag") : bytes == 2 ? file.u16(at) : file.u32(at);
  }
};

// The first directory of the file. Tags whose values are no unsigned integers are left out.
class Directory {
 public:
  explicit Directory(const Source& source) : source_(source), file_{&source, source.u8(0, "the header") == 'M'} {
    uint64_t at = file_.u32(4);
    const int entries = file_.u16(at);
    at += 2;
    for (int i = 0; i < entries; ++i, at += 12) read_entry(at);
  }

  bool has(Tag tag) const { return values_.contains(tag); }
  const Values& all(Tag tag, const char* name) const {
    source_.check(has(tag), "expected a tag ", int{tag}, " (", name, "), found none");
    return values_.at(tag);
  }
  uint32_t one(Tag tag, const char* name) const { return all(tag, name)[0]; }
  uint32_t one_or(Tag tag, uint32_t otherwise) const { return has(tag) ? values_.at(tag)[0] : otherwise; }
  bool big_endian() const { return file_.big_endian; }

 private:
  void read_entry(uint64_t at) {
    const uint16_t tag = file_.u16(at), type = file_.u16(at + 2);
    const uint64_t count = file_.u32(at + 4);
    const int bytes = type == 1 ? 1 : type == 3 ? 2 : type == 4 ? 4 : 0;
    if (bytes == 0 || count == 0 || values_.contains(tag)) return;
    const uint64_t from = bytes * count <= 4 ? at + 8 : file_.u32(at + 8);
    source_.read(from, bytes * count, "a tag");
    values_[tag] = {file_, from, count, bytes};
  }

  const Source& source_;
  const Integers file_;
  std::map<uint16_t, Values> values_;
};

// Each of these fills as much of `out` as its input gives and returns how much that is.
size_t unpack_bits(std::span<const uint8_t> in, std::span<uint8_t> out) {
  size_t filled = 0;
  for (size_t at = 0; at + 1 < in.size() && filled < out.size();) {
    const int head = static_cast<int8_t>(in[at++]);
    if (head == -128) continue;
    const size_t wanted = head >= 0 ? head + 1 : 1 - head;
    const size_t count = std::min({wanted, out.size() - filled, head >= 0 ? in.size() - at : wanted});
    for (size_t i = 0; i < count; ++i) out[filled++] = in[head >= 0 ? at + i : at];
    at += head >= 0 ? count : 1;
  }
  return filled;
}

size_t inflate_strip(std::span<const uint8_t> in, std::span<uint8_t> out) {
  z_stream stream{};
  if (inflateInit(&stream) != Z_OK) return 0;
  stream.next_in = const_cast<uint8_t*>(in.data()), stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = out.data(), stream.avail_out = static_cast<uInt>(out.size());
  inflate(&stream, Z_FINISH);
  const size_t filled = stream.total_out;
  inflateEnd(&stream);
  return filled;
}

// Codes of 9 to 12 bits, most significant bit first; the width grows one code early.
size_t unpack_lzw(std::span<const uint8_t> in, std::span<uint8_t> out) {
  constexpr int clear = 256, end = 257, max_codes = 4096;
  struct String {
    size_t start, length;  // in `out`: every string has been written there before
  };
  std::vector<String> strings(max_codes);
  int known = 258, size = 9;
  size_t filled = 0, bit = 0;
  String previous{0, 0};
  while (filled < out.size() && bit + size <= in.size() * 8) {
    int code = 0;
    for (int i = 0; i < size; ++i, ++bit) code = code << 1 | (in[bit / 8] >> (7 - bit % 8) & 1);
    if (code == end) break;
    if (code == clear) {
      known = 258, size = 9, previous = {0, 0};
      continue;
    }
    if (code > known || (code >= 258 && previous.length == 0) || (code == known && known == max_codes)) break;
    const String now{filled, 0};
    if (previous.length > 0 && known < max_codes) {
      strings[known++] = {previous.start, previous.length + 1};
      if (known >= (1 << size) - 1 && size < 12) ++size;
    }
    const size_t length = code < 256 ? 1 : strings[code].length;
    for (size_t i = 0; i < length && filled < out.size(); ++i)
      out[filled++] = code < 256 ? static_cast<uint8_t>(code) : out[strings[code].start + i];
    previous = {now.start, length};
  }
  return filled;
}

size_t unpack(uint32_t compression, std::span<const uint8_t> in, std::span<uint8_t> out) {
  if (compression == kPackBits) return unpack_bits(in, out);
  if (compression == kLzw) return unpack_lzw(in, out);
  if (compression == kDeflate || compression == kOldDeflate) return inflate_strip(in, out);
  const size_t count = std::min(in.size(), out.size());
  std::copy_n(in.begin(), count, out.begin());
  return count;
}

struct Layout {
  int64_t width, height, samples, bits, row_bytes;
  uint32_t photometric;
  bool is_signed;
};

// What all samples of a pixel have in common; error where they differ.
uint32_t of_each_sample(const Source& source, const Directory& tags, Tag tag, const char* name, int64_t samples) {
  if (!tags.has(tag)) return 1;
  const Values& values = tags.all(tag, name);
  source.check(values.size() == 1 || static_cast<int64_t>(values.size()) >= samples, "expected ", samples, " ", name,
               ", found ", values.size());
  for (uint64_t i = 1; i < values.size() && static_cast<int64_t>(i) < samples; ++i)
    source.check(values[i] == values[0], name, " of ", values[0], " and ", values[i],
                 " in one pixel are not supported");
  return values[0];
}

uint8_t reversed(uint8_t byte) {
  int result = 0;
  for (int bit = 0; bit < 8; ++bit) result |= (byte >> bit & 1) << (7 - bit);
  return static_cast<uint8_t>(result);
}

Layout read_layout(const Source& source, const Directory& tags) {
  Layout l{};
  l.width = tags.one(kWidth, "width"), l.height = tags.one(kHeight, "height");
  l.samples = tags.one_or(kSamples, 1);
  l.bits = of_each_sample(source, tags, kBits, "bits per sample", l.samples);
  l.photometric = tags.one(kPhotometric, "photometric interpretation");
  source.check(!tags.has(kTileWidth), "tiles are not supported, only strips");
  source.check(tags.one_or(kPlanar, 1) == 1 || l.samples == 1, "separate planes are not supported");
  source.check(tags.one_or(kExtraSamples, 0) != 1, "premultiplied alpha is not supported");
  const bool grey = l.photometric <= kBlackIsZero && l.samples >= 1 && l.samples <= 2;
  const bool colour = l.photometric == kRgb && l.samples >= 3 && l.samples <= 4;
  const bool indexed = l.photometric == kPalette && l.samples == 1 && l.bits == 8;
  source.check(
      (grey && l.bits == 1 && l.samples == 1) || ((grey || colour) && (l.bits == 8 || l.bits == 16)) || indexed,
      l.samples, " samples of ", l.bits, " bits with photometric interpretation ", l.photometric, " are not supported");
  // Pillow reads grey signed samples alone, and those of 8 bits as if they had no sign.
  const uint32_t sample_format = of_each_sample(source, tags, kSampleFormat, "sample formats", l.samples);
  const bool signed_grey = sample_format == 2 && l.photometric == kBlackIsZero && l.samples == 1 && l.bits >= 8;
  source.check(sample_format == 1 || signed_grey, "sample format ", sample_format, " of ", l.samples, " samples of ",
               l.bits, " bits is not supported");
  l.is_signed = signed_grey && l.bits == 16;
  l.row_bytes = (l.width * l.samples * l.bits + 7) / 8;
  return l;
}

// All rows, unpacked: [height, row_bytes].
std::vector<uint8_t> read_rows(const Source& source, const Directory& tags, const Layout& l) {
  const uint32_t compression = tags.one_or(kCompression, kPlain), predictor = tags.one_or(kPredictor, 1);
  const auto known = {kPlain, kLzw, kDeflate, kPackBits, kOldDeflate};
  source.check(std::find(known.begin(), known.end(), compression) != known.end(), "compression ", compression,
               " is not supported");
  source.check(predictor == 1 || (predictor == 2 && l.bits == 8), "predictor ", predictor, " of ", l.bits,
               "-bit samples is not supported");
  const uint32_t fill_order = tags.one_or(kFillOrder, 1);
  source.check(fill_order == 1 || fill_order == 2, "expected fill order 1 or 2, found ", fill_order);
  const Values& offsets = tags.all(kStripOffsets, "strip offsets");
  const int64_t per_strip = std::min<int64_t>(std::max<uint32_t>(tags.one_or(kRowsPerStrip, UINT32_MAX), 1), l.height);
  const int64_t strips = (l.height + per_strip - 1) / per_strip;
  source.check(static_cast<int64_t>(offsets.size()) >= strips, "expected ", strips, " strips, found ", offsets.size());

  std::vector<uint8_t> rows(static_cast<size_t>(l.row_bytes * l.height)), mirrored;
  for (int64_t s = 0; s < strips; ++s) {
    const int64_t first = s * per_strip, count = std::min(per_strip, l.height - first);
    const std::span<uint8_t> out(&rows[first * l.row_bytes], static_cast<size_t>(count * l.row_bytes));
    const bool sized = tags.has(kStripBytes) && static_cast<int64_t>(tags.all(kStripBytes, "").size()) > s;
    source.check(sized || compression == kPlain, "the size of strip ", s, " is missing");
    auto in = source.read(offsets[s], sized ? tags.all(kStripBytes, "")[s] : out.size(), "a strip");
    if (fill_order == 2) {
      in = in.first(std::min(in.size(), 2 * out.size() + 1024));  // more than any packing needs
      mirrored.resize(in.size());
      std::transform(in.begin(), in.end(), mirrored.begin(), reversed);
      in = mirrored;
    }
    const size_t filled = unpack(compression, in, out);
    source.check(filled == out.size(), "strip ", s, " holds ", filled, " of ", out.size(), " bytes");
  }
  if (predictor == 2)
    for (int64_t y = 0; y < l.height; ++y)
      for (int64_t i = l.samples; i < l.row_bytes; ++i)
        rows[y * l.row_bytes + i] += rows[y * l.row_bytes + i - l.samples];
  return rows;
}

// 16-bit grey as Pillow makes it a byte.
uint8_t clipped(uint8_t high, uint8_t low, bool is_signed) {
  if (is_signed && high >= 128) return 0;
  return high ? 255 : low;
}

Palette read_palette(const Source& source, const Directory& tags, const Layout& l) {
  if (l.photometric != kPalette) return Palette::grey();
  Palette palette;
  const Values& colours = tags.all(kColours, "colours");
  source.check(colours.size() == 768, "expected 768 palette values, found ", colours.size());
  for (int i = 0; i < 256; ++i)
    for (int c = 0; c < 3; ++c) palette.rgb[i][c] = static_cast<uint8_t>(colours[c * 256 + i] >> 8);
  return palette;
}

}  // namespace

Image decode_tiff(const Source& source) {
  const Directory tags(source);
  const Layout l = read_layout(source, tags);
  Image image = source.new_image(l.width, l.height);
  const Palette palette = read_palette(source, tags, l);
  const std::vector<uint8_t> rows = read_rows(source, tags, l);
  const int64_t low = tags.big_endian() ? 1 : 0;  // where the low byte of a 16-bit sample is

  uint8_t* rgb = image.rgb.data();
  for (int64_t y = 0; y < l.height; ++y)
    for (int64_t x = 0; x < l.width; ++x, rgb += 3) {
      const uint8_t* row = &rows[y * l.row_bytes];
      for (int64_t c = 0; c < 3; ++c) {
        const int64_t sample = x * l.samples + (l.photometric == kRgb ? c : 0);
        if (l.bits == 1)
          rgb[c] = row[x / 8] >> (7 - x % 8) & 1 ? 255 : 0;
        else if (l.bits == 8)
          rgb[c] = palette.rgb[row[sample]][c];
        else if (l.photometric == kRgb)
          rgb[c] = row[2 * sample + 1 - low];
        else
          rgb[c] = clipped(row[2 * sample + 1 - low], row[2 * sample + low], l.is_signed);
        if (l.photometric == kWhiteIsZero && l.bits < 16) rgb[c] = 255 - rgb[c];  // 16 bits: Pillow does not
      }
    }
  const uint32_t orientation = tags.one_or(kOrientation, 1);
  return apply_orientation(std::move(image), orientation >= 2 && orientation <= 8 ? static_cast<int>(orientation) : 1);
}

}  // namespace nanovlm::codecs
