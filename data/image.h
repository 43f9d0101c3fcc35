// Pictures: bytes to RGB, RGB to the tensor the vision encoder takes.
//
// Every result equals, bit for bit, what the reference gets from Pillow: Image.open(f).convert("RGB"), Image.resize and
// torchvision's Resize and ToTensor on a PIL image. docs/images.md lists what that means for each format.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/error.h"

namespace nanovlm {

// A picture that cannot be read. The message is one line: file, format, what was expected, what was found.
struct ImageError : Error {
  using Error::Error;
};

struct Image {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  // [height, width, 3], row-major
};

// All but the scans, which are counted while decoding, are checked against the header, before memory is asked for.
struct ImageLimits {
  int64_t max_pixels = 64'000'000;
  int64_t max_side = 1'000'000;
  int64_t max_bytes = 256 << 20;  // of the file
  int max_scans = 100;            // of a progressive JPEG: a small file may hold thousands, each as slow as a picture
};

// Reads JPEG, PNG, WebP, GIF, BMP, PNM, TGA and TIFF (of several frames the first), told apart by content.
// Alpha is dropped, the EXIF orientation is not applied. Damaged or cut data is an ImageError that starts with `where`.
Image decode_image(std::span<const uint8_t> bytes, const std::string& where, const ImageLimits& limits = {});

// "JPEG", "PNG", "WebP", "GIF", "BMP", "PNM", "TGA" or "TIFF", by content; empty where none of them is recognised.
std::string image_format(std::span<const uint8_t> bytes);

// decode_image of a regular file; ImageError too where it cannot be read.
Image read_image(const std::string& path, const ImageLimits& limits = {});

// 1 to 8 as EXIF (or XMP, where EXIF is silent) says; 1 where nothing valid is said. Never throws.
// Reads the metadata of JPEG, PNG and WebP.
int exif_orientation(std::span<const uint8_t> bytes);

// Turns a picture upright, given its EXIF orientation (1 to 8).
Image apply_orientation(Image image, int orientation);

enum class Filter { bilinear, bicubic };

// Separable antialiased resampling, rounded to 8 bits after each pass. The aspect ratio is the caller's business.
Image resize(const Image& image, int width, int height, Filter filter = Filter::bilinear);

// chw [3, size, size]: the picture resized to size x size, each value a byte / 255. No mean, no deviation.
void image_to_tensor(const Image& image, int size, float* chw);
void image_to_tensor(const Image& image, int size, uint8_t* chw);  // the bytes themselves

std::vector<uint8_t> encode_png(const Image& image);

// The file appears whole or not at all.
void write_png(const std::string& path, const Image& image);

}  // namespace nanovlm
