// Plain drawing on a picture - rectangles, other pictures, lines of text - for the sheets that people look at.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/image.h"

namespace nanovlm {

struct Rgb {
  uint8_t red, green, blue;
  bool operator==(const Rgb&) const = default;
};

// What lies outside the picture is left out. x and y are the left upper corner, in pixels.
void fill(Image& on, int x, int y, int width, int height, Rgb colour);
void paste(Image& on, const Image& picture, int x, int y);

// Every pixel as factor x factor pixels.
Image enlarged(const Image& picture, int factor);

// DejaVu Sans in one size. Characters stand side by side: no kerning, no joined scripts. For one thread at a time.
class Typeface {
 public:
  static const std::vector<std::string>& font_folders();  // where distributions put it

  // Error: none of the folders has the font.
  explicit Typeface(int pixels, bool bold = false, const std::vector<std::string>& folders = font_folders());
  Typeface(Typeface&&) noexcept;
  ~Typeface();

  // Texts are UTF-8; what is invalid in them is drawn as U+FFFD, and what can't be printed as a dot.
  int width(const std::string& text) const;
  void draw(Image& on, int x, int y, const std::string& text, Rgb colour) const;  // y is the top of the line

  // The bytes of the longest beginning that is at most `room` pixels wide, but of one character at least.
  size_t fitting(const std::string& text, int room) const;
  // The text, or as much of it as fits with an ellipsis.
  std::string shortened(const std::string& text, int room) const;

 private:
  struct Glyph {
    int advance, left, top;  // top: from the top of the line
    int width, height;
    std::vector<uint8_t> coverage;  // [height, width], 255: all of the pixel
  };
  struct Face;

  const Glyph& glyph(char32_t code) const;

  std::unique_ptr<Face> face_;
  mutable std::unordered_map<char32_t, Glyph> glyphs_;  // those that were asked for
};

}  // namespace nanovlm
