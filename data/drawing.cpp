#include "data/drawing.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include <ft2build.h>
#include FT_FREETYPE_H

#include "data/unicode.h"

namespace nanovlm {
namespace {

uint8_t mixed(uint8_t below, uint8_t above, int coverage) {
  return static_cast<uint8_t>((below * (255 - coverage) + above * coverage + 127) / 255);
}

char32_t printed(char32_t code) {
  const bool control = code < 0x20 || (code >= 0x7f && code < 0xa0);
  return code == '\n' ? U'⏎' : control ? U'·' : code;
}

// Calls f(code, byte behind it) for each character until it returns false.
template <class F>
void each_character(const std::string& text, const F& f) {
  for (size_t at = 0; at < text.size();) {
    const Character character = Character::at(text, at);
    at += static_cast<size_t>(character.size);
    if (!f(printed(character.code), at)) return;
  }
}
}  // namespace

void fill(Image& on, int x, int y, int width, int height, Rgb colour) {
  const int left = std::max(x, 0), right = std::min(x + width, on.width);
  for (int row = std::max(y, 0); row < std::min(y + height, on.height); ++row) {
    uint8_t* to = &on.rgb[3 * (static_cast<size_t>(row) * on.width + left)];
    for (int column = left; column < right; ++column, to += 3) std::memcpy(to, &colour, 3);
  }
}

void paste(Image& on, const Image& picture, int x, int y) {
  const int left = std::max(x, 0), right = std::min(x + picture.width, on.width);
  for (int row = std::max(y, 0); left < right && row < std::min(y + picture.height, on.height); ++row)
    std::memcpy(&on.rgb[3 * (static_cast<size_t>(row) * on.width + left)],
                &picture.rgb[3 * (static_cast<size_t>(row - y) * picture.width + (left - x))],
                3 * static_cast<size_t>(right - left));
}

Image enlarged(const Image& picture, int factor) {
  Image out{picture.width * factor, picture.height * factor, {}};
  out.rgb.resize(3 * static_cast<size_t>(out.width) * out.height);
  uint8_t* to = out.rgb.data();
  for (int y = 0; y < out.height; ++y)
    for (int x = 0; x < out.width; ++x, to += 3)
      std::memcpy(to, &picture.rgb[3 * (static_cast<size_t>(y / factor) * picture.width + x / factor)], 3);
  return out;
}

struct Typeface::Face {
  FT_Library library = nullptr;
  FT_Face face = nullptr;

  Face() { check(FT_Init_FreeType(&library) == 0, "drawing: FreeType can't be started"); }
  ~Face() {
    FT_Done_Face(face);
    FT_Done_FreeType(library);
  }
  Face(const Face&) = delete;
};

const std::vector<std::string>& Typeface::font_folders() {
  static const std::vector<std::string> folders = {"/usr/share/fonts/truetype/dejavu", "/usr/share/fonts/TTF",
                                                   "/usr/share/fonts/dejavu-sans-fonts", "/usr/share/fonts/dejavu",
                                                   "/usr/local/share/fonts"};
  return folders;
}

Typeface::Typeface(int pixels, bool bold, const std::vector<std::string>& folders) : face_(std::make_unique<Face>()) {
  const std::string name = bold ? "DejaVuSans-Bold.ttf" : "DejaVuSans.ttf";
  std::string looked_in;
  for (const std::string& folder : folders) {
    const std::string path = folder + "/" + name;
    looked_in += (looked_in.empty() ? "" : ", ") + folder;
    if (!std::filesystem::exists(path)) continue;
    const bool usable = FT_New_Face(face_->library, path.c_str(), 0, &face_->face) == 0 &&
                        FT_Set_Pixel_Sizes(face_->face, 0, static_cast<FT_UInt>(pixels)) == 0;
    check(usable, path, ": expected a font, found something that FreeType can't use");
    return;
  }
  fail("drawing: expected the font ", name, " in one of ", looked_in, ", found none: install fonts-dejavu-core");
}

Typeface::Typeface(Typeface&&) noexcept = default;
Typeface::~Typeface() = default;

const Typeface::Glyph& Typeface::glyph(char32_t code) const {
  const auto found = glyphs_.find(code);
  if (found != glyphs_.end()) return found->second;
  // A character that the font lacks has the glyph 0, a box.
  check(FT_Load_Char(face_->face, code, FT_LOAD_RENDER) == 0, "drawing: character ", static_cast<uint32_t>(code),
        " can't be drawn");
  const FT_GlyphSlot slot = face_->face->glyph;
  const FT_Bitmap& bitmap = slot->bitmap;
  const auto ascender = static_cast<int>(face_->face->size->metrics.ascender >> 6);
  Glyph glyph{static_cast<int>(slot->advance.x >> 6),
              slot->bitmap_left,
              ascender - slot->bitmap_top,
              static_cast<int>(bitmap.width),
              static_cast<int>(bitmap.rows),
              {}};
  for (int y = 0; y < glyph.height; ++y) {
    const uint8_t* row = bitmap.buffer + static_cast<ptrdiff_t>(y) * bitmap.pitch;
    glyph.coverage.insert(glyph.coverage.end(), row, row + glyph.width);
  }
  return glyphs_.emplace(code, std::move(glyph)).first->second;
}

int Typeface::width(const std::string& text) const {
  int width = 0;
  each_character(replace_invalid_utf8(text), [&](char32_t code, size_t) {
    width += glyph(code).advance;
    return true;
  });
  return width;
}

void Typeface::draw(Image& on, int x, int y, const std::string& text, Rgb colour) const {
  each_character(replace_invalid_utf8(text), [&](char32_t code, size_t) {
    const Glyph& shape = glyph(code);
    for (int j = 0; j < shape.height; ++j)
      for (int i = 0; i < shape.width; ++i) {
        const int column = x + shape.left + i, row = y + shape.top + j;
        if (column < 0 || column >= on.width || row < 0 || row >= on.height) continue;
        uint8_t* at = &on.rgb[3 * (static_cast<size_t>(row) * on.width + column)];
        const int coverage = shape.coverage[static_cast<size_t>(j) * shape.width + i];
        at[0] = mixed(at[0], colour.red, coverage);
        at[1] = mixed(at[1], colour.green, coverage);
        at[2] = mixed(at[2], colour.blue, coverage);
      }
    x += shape.advance;
    return true;
  });
}

size_t Typeface::fitting(const std::string& text, int room) const {
  size_t end = 0;
  int width = 0;
  each_character(text, [&](char32_t code, size_t behind) {
    width += glyph(code).advance;
    if (end > 0 && width > room) return false;
    end = behind;
    return true;
  });
  return end;
}

std::string Typeface::shortened(const std::string& text, int room) const {
  const std::string valid = replace_invalid_utf8(text);
  if (width(valid) <= room) return valid;
  return valid.substr(0, fitting(valid, room - width("…"))) + "…";
}

}  // namespace nanovlm
