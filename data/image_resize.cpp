// Resampling as Pillow does it, to the bit: columns first, then rows, bytes again after each pass. A pass whose side
// already has the wanted size is left out.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "data/image.h"
#include "data/resample.h"

namespace nanovlm {
namespace {

constexpr int kRows = Resampler::kRows, kChunk = Resampler::kChunk;
using Bytes = uint8_t __attribute__((vector_size(16)));

// Rows of RGB with room behind each, so that a chunk may be read or written at any pixel.
struct Plane {
  int64_t stride;
  std::unique_ptr<uint8_t[]> bytes;

  Plane(int64_t rows, int64_t width)
      : stride((3 * width + 2 * kChunk - 1) / kChunk * kChunk),
        bytes(std::make_unique_for_overwrite<uint8_t[]>(static_cast<size_t>(rows * stride))) {}
  uint8_t* row(int64_t y) const { return bytes.get() + y * stride; }
};

// [pixels, 3] bytes to [3, pixels], the planes `step` apart.
NANOVLM_CLONES void to_planes(const uint8_t* rgb, int64_t pixels, int64_t step, uint8_t* chw) {
  int64_t i = 0;
  for (; i + 16 <= pixels; i += 16) {
    Bytes in[3];
    std::memcpy(in, rgb + 3 * i, sizeof in);
    // of the first 32 bytes, then of all 48
    const Bytes red = __builtin_shuffle(in[0], in[1], Bytes{0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30});
    const Bytes green = __builtin_shuffle(in[0], in[1], Bytes{1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31});
    const Bytes blue = __builtin_shuffle(in[0], in[1], Bytes{2, 5, 8, 11, 14, 17, 20, 23, 26, 29});
    const Bytes planes[3] = {
        __builtin_shuffle(red, in[2], Bytes{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17, 20, 23, 26, 29}),
        __builtin_shuffle(green, in[2], Bytes{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 18, 21, 24, 27, 30}),
        __builtin_shuffle(blue, in[2], Bytes{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 19, 22, 25, 28, 31})};
    for (int channel = 0; channel < 3; ++channel)
      std::memcpy(chw + channel * step + i, &planes[channel], sizeof(Bytes));
  }
  for (; i < pixels; ++i)
    for (int channel = 0; channel < 3; ++channel) chw[channel * step + i] = rgb[3 * i + channel];
}

// The same, each byte divided by 255.
NANOVLM_CLONES void to_planes(const uint8_t* rgb, int64_t pixels, int64_t step, float* chw) {
  constexpr int64_t kPixels = 1024;
  uint8_t planes[3 * kPixels];
  for (int64_t i = 0; i < pixels; i += kPixels) {
    const int64_t n = std::min(kPixels, pixels - i);
    to_planes(rgb + 3 * i, n, kPixels, planes);
    for (int channel = 0; channel < 3; ++channel)
      for (int64_t j = 0; j < n; ++j)
        chw[channel * step + i + j] = static_cast<float>(planes[channel * kPixels + j]) / 255.0f;
  }
}

Plane resize_width(const Image& image, int width, Filter filter) {
  const int64_t row_bytes = 3 * static_cast<int64_t>(image.width);
  Plane out(image.height, width);
  if (width == image.width) {
    for (int y = 0; y < image.height; ++y) std::memcpy(out.row(y), &image.rgb[y * row_bytes], row_bytes);
    return out;
  }
  const Resampler resampler(image.width, width, filter);
  Plane last(kRows, image.width), spare(1, width);  // the image itself has no room behind its last row
  for (int y = 0; y < image.height; y += kRows) {
    const uint8_t* from[kRows];
    uint8_t* to[kRows];
    for (int r = 0; r < kRows; ++r) {
      const int64_t at = std::min(y + r, image.height - 1) * row_bytes;
      const bool room = at + row_bytes + Resampler::kSlack <= static_cast<int64_t>(image.rgb.size());
      if (!room) std::memcpy(last.row(r), &image.rgb[at], row_bytes);
      from[r] = room ? &image.rgb[at] : last.row(r);
      to[r] = y + r < image.height ? out.row(y + r) : spare.row(0);
    }
    resampler.columns(from, to);
  }
  return out;
}

}  // namespace

Image resize(const Image& image, int width, int height, Filter filter) {
  check(width > 0 && height > 0, "resize: wanted size is ", width, " x ", height, ", but both sides must be positive");
  check(image.width > 0 && image.height > 0 &&
            static_cast<int64_t>(image.rgb.size()) == int64_t{3} * image.width * image.height,
        "resize: picture is ", image.width, " x ", image.height, " with ", image.rgb.size(), " bytes");
  if (width == image.width && height == image.height) return image;

  const Plane columns = resize_width(image, width, filter);
  const int64_t row_bytes = 3 * static_cast<int64_t>(width);
  Image out{width, height, std::vector<uint8_t>(static_cast<size_t>(row_bytes * height))};
  if (height == image.height) {
    for (int y = 0; y < height; ++y) std::memcpy(&out.rgb[y * row_bytes], columns.row(y), row_bytes);
    return out;
  }
  const Resampler resampler(image.height, height, filter);
  Plane row(1, width);
  for (int y = 0; y < height; ++y) {
    resampler.row(y, columns.row(0), columns.stride, row_bytes, row.row(0));
    std::memcpy(&out.rgb[y * row_bytes], row.row(0), row_bytes);
  }
  return out;
}

namespace {

template <class T>
void resized_to_planes(const Image& image, int size, T* chw) {
  const int64_t pixels = static_cast<int64_t>(size) * size;
  if (image.width == size && image.height == size)
    to_planes(image.rgb.data(), pixels, pixels, chw);
  else
    to_planes(resize(image, size, size).rgb.data(), pixels, pixels, chw);
}

}  // namespace

void image_to_tensor(const Image& image, int size, float* chw) { resized_to_planes(image, size, chw); }
void image_to_tensor(const Image& image, int size, uint8_t* chw) { resized_to_planes(image, size, chw); }

}  // namespace nanovlm
