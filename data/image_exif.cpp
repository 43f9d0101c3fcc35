// Where a picture's orientation is written: EXIF in a JPEG's APP1 segment, a PNG's eXIf or text chunk, a WebP's EXIF
// chunk, and, where that says nothing, XMP. Rules and precedence are Pillow's. Broken metadata counts as none.
#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <zlib.h>

#include "data/image.h"

namespace nanovlm {
namespace {

using Bytes = std::span<const uint8_t>;

struct Metadata {
  std::string exif, xmp;
  bool xmp_is_compressed = false;  // the last one counts, so only that is inflated
  int inflated_profiles = 0;
};

std::string_view as_text(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// `count` bytes from `offset` as a number; 0 where they are not all there.
uint64_t number(std::string_view bytes, uint64_t offset, int count, bool big_endian) {
  if (offset > bytes.size() || bytes.size() - offset < static_cast<uint64_t>(count)) return 0;
  uint64_t value = 0;
  for (int i = 0; i < count; ++i)
    value = value << 8 | static_cast<uint8_t>(bytes[offset + (big_endian ? i : count - 1 - i)]);
  return value;
}

// A view of `count` bytes, or of what is left of them.
Bytes part(Bytes bytes, uint64_t offset, uint64_t count) {
  offset = std::min<uint64_t>(offset, bytes.size());
  return bytes.subspan(offset, std::min<uint64_t>(count, bytes.size() - offset));
}

Metadata of_jpeg(Bytes bytes) {
  constexpr std::string_view exif("Exif\0\0", 6), xmp("http://ns.adobe.com/xap/1.0/\0", 29);
  Metadata found;
  for (uint64_t at = 2; at + 4 <= bytes.size() && bytes[at] == 0xff;) {
    const uint8_t marker = bytes[at + 1];
    if (marker == 0xff) {  // fill byte
      ++at;
      continue;
    }
    if (marker == 0xda || marker == 0xd9) break;
    const uint64_t length = number(as_text(bytes), at + 2, 2, true);
    const std::string_view body = as_text(part(bytes, at + 4, length < 2 ? 0 : length - 2));
    if (marker == 0xe1 && body.starts_with(exif)) found.exif += body.substr(found.exif.empty() ? 0 : exif.size());
    if (marker == 0xe1 && body.starts_with(xmp)) found.xmp = body.substr(xmp.size());
    at += 2 + std::max<uint64_t>(length, 2);
  }
  return found;
}

std::string inflated(std::string_view compressed) {
  constexpr size_t max_bytes = 1 << 20;
  std::string out(max_bytes, '\0');
  uLongf size = max_bytes;
  const auto from = reinterpret_cast<const Bytef*>(compressed.data());
  if (uncompress(reinterpret_cast<Bytef*>(out.data()), &size, from, compressed.size()) != Z_OK) return {};
  out.resize(size);
  return out;
}

// ImageMagick writes EXIF as text: an empty line, "exif", the byte count, then hexadecimal digits.
std::string from_raw_profile(std::string_view text) {
  for (int line = 0; line < 3; ++line) text.remove_prefix(std::min(text.find('\n'), text.size() - 1) + 1);
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  std::string out;
  int high = -1;
  for (const char c : text) {
    const int d = digit(c);
    if (d < 0) continue;
    if (high >= 0) out += static_cast<char>(high << 4 | d);
    high = high >= 0 ? -1 : d;
  }
  return out;
}

// tEXt: key, 0, text. zTXt: key, 0, method, compressed. iTXt: key, 0, compressed?, method, language, 0, translated, 0,
// text.
void read_text_chunk(std::string_view type, std::string_view body, Metadata& found) {
  const size_t end = std::min(body.find('\0'), body.size());
  const std::string_view key = body.substr(0, end);
  const bool profile = key == "Raw profile type exif", xmp = key == "XML:com.adobe.xmp";
  if ((!profile && !xmp) || end + 1 >= body.size()) return;
  std::string_view value = body.substr(end + 1);
  bool compressed = type == "zTXt";
  if (type == "iTXt") {
    compressed = value[0] != 0;
    value.remove_prefix(1);
  }
  if (type != "tEXt" && !value.empty()) value.remove_prefix(1);
  for (int i = 0; type == "iTXt" && i < 2; ++i)
    value.remove_prefix(std::min(value.find('\0'), value.size() - !value.empty()) + !value.empty());
  if (xmp) {
    found.xmp = value;
    found.xmp_is_compressed = compressed;
    return;
  }
  // Inflating costs a chunk of any size a megabyte: no more of them than an honest file has.
  constexpr int max_inflated = 16;
  if (!found.exif.empty() || (compressed && found.inflated_profiles++ >= max_inflated)) return;
  const std::string text = compressed ? inflated(value) : std::string(value);
  if (!text.empty()) found.exif = from_raw_profile(text);
}

Metadata of_png(Bytes bytes) {
  Metadata found;
  for (uint64_t at = 8; at + 8 <= bytes.size();) {
    const uint64_t length = number(as_text(bytes), at, 4, true);
    const std::string_view type = as_text(part(bytes, at + 4, 4)), body = as_text(part(bytes, at + 8, length));
    if (type == "eXIf") found.exif = body;
    if (type == "tEXt" || type == "zTXt" || type == "iTXt") read_text_chunk(type, body, found);
    at += 12 + length;
  }
  if (found.xmp_is_compressed) found.xmp = inflated(found.xmp);
  return found;
}

Metadata of_webp(Bytes bytes) {
  Metadata found;
  for (uint64_t at = 12; at + 8 <= bytes.size();) {
    const uint64_t length = number(as_text(bytes), at + 4, 4, false);
    const std::string_view type = as_text(part(bytes, at, 4)), body = as_text(part(bytes, at + 8, length));
    if (type == "EXIF") found.exif = body;
    if (type == "XMP ") found.xmp = body;
    at += 8 + length + length % 2;
  }
  return found;
}

// The orientation in a TIFF structure's first directory; 0 where there is none.
int orientation_in(std::string_view exif) {
  constexpr std::string_view prefix("Exif\0\0", 6);
  while (exif.starts_with(prefix)) exif.remove_prefix(prefix.size());
  const bool big = exif.starts_with("MM");
  if (!big && !exif.starts_with("II")) return 0;
  const uint64_t directory = number(exif, 4, 4, big), entries = number(exif, directory, 2, big);
  for (uint64_t i = 0; i < entries; ++i) {
    const uint64_t at = directory + 2 + 12 * i;
    if (at + 12 > exif.size()) break;
    if (number(exif, at, 2, big) != 0x112) continue;
    const uint64_t type = number(exif, at + 2, 2, big);
    return static_cast<int>(number(exif, at + 8, type == 1 ? 1 : type == 4 ? 4 : 2, big));
  }
  return 0;
}

int orientation_in_xmp(std::string_view xmp) {
  constexpr std::string_view name = "tiff:Orientation";
  for (size_t at = xmp.find(name); at != xmp.npos; at = xmp.find(name, at + 1)) {
    std::string_view rest = xmp.substr(at + name.size());
    if (rest.starts_with("=\""))
      rest.remove_prefix(2);
    else if (rest.starts_with(">"))
      rest.remove_prefix(1);
    else
      continue;
    if (!rest.empty() && rest[0] >= '0' && rest[0] <= '9') return rest[0] - '0';
  }
  return 0;
}

}  // namespace

int exif_orientation(std::span<const uint8_t> bytes) {
  const std::string_view text = as_text(bytes);
  Metadata found;
  if (text.starts_with("\xff\xd8\xff")) found = of_jpeg(bytes);
  if (text.starts_with("\x89PNG")) found = of_png(bytes);
  if (text.starts_with("RIFF")) found = of_webp(bytes);
  int orientation = orientation_in(found.exif);
  if (orientation == 0) orientation = orientation_in_xmp(found.xmp);
  return orientation >= 1 && orientation <= 8 ? orientation : 1;
}

}  // namespace nanovlm
