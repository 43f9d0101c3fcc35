// Resampling as Pillow does it, to the bit: columns first, then rows, bytes again after each pass. A pass whose side
// already has the wanted size is left out.
#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
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

// The rows of a picture at another width, made when they are needed: of a tall picture all of them at once would take
// gigabytes.
class RowWindow {
 public:
  // `count`: the most rows that are asked for at a time.
  RowWindow(const Image& image, int width, int64_t count, Filter filter)
      : image_(image),
        capacity_((std::min<int64_t>(image.height, std::max(2 * count, kUsual)) + 2 * kRows - 1) / kRows * kRows),
        out_(capacity_, width),
        last_(kRows, image.width) {
    if (width != image.width) resampler_.emplace(image.width, width, filter);
  }

  int64_t stride() const { return out_.stride; }

  // Rows `first` to first + count - 1, a stride apart. `first` never falls from call to call.
  const uint8_t* rows(int64_t first, int64_t count) {
    while (end_ < first + count) {
      if (end_ - begin_ + kRows > capacity_) {
        const int64_t kept = std::max<int64_t>(end_ - first, 0);
        std::memmove(out_.row(0), out_.row(end_ - kept - begin_), static_cast<size_t>(kept * out_.stride));
        begin_ = end_ - kept;
      }
      make();
    }
    return out_.row(first - begin_);
  }

 private:
  static constexpr int64_t kUsual = 1024;  // rows: most pictures have no more and never move any

  // The next kRows rows; those behind the picture's end are its last again.
  void make() {
    const int64_t row_bytes = 3 * static_cast<int64_t>(image_.width);
    const uint8_t* from[kRows];
    uint8_t* to[kRows];
    for (int r = 0; r < kRows; ++r) {
      const int64_t at = std::min<int64_t>(end_ + r, image_.height - 1) * row_bytes;
      to[r] = out_.row(end_ + r - begin_);
      if (!resampler_) {
        std::memcpy(to[r], &image_.rgb[at], row_bytes);
        continue;
      }
      // The image itself has no room behind its last row.
      const bool room = at + row_bytes + Resampler::kSlack <= static_cast<int64_t>(image_.rgb.size());
      if (!room) std::memcpy(last_.row(r), &image_.rgb[at], row_bytes);
      from[r] = room ? &image_.rgb[at] : last_.row(r);
    }
    if (resampler_) resampler_->columns(from, to);
    end_ += kRows;
  }

  const Image& image_;
  int64_t capacity_;  // in rows, as are these
  int64_t begin_ = 0, end_ = 0;
  Plane out_, last_;
  std::optional<Resampler> resampler_;  // none where the width stays
};

}  // namespace

Image resize(const Image& image, int width, int height, Filter filter) {
  check(width > 0 && height > 0, "resize: wanted size is ", width, " x ", height, ", but both sides must be positive");
  check(image.width > 0 && image.height > 0 &&
            static_cast<int64_t>(image.rgb.size()) == int64_t{3} * image.width * image.height,
        "resize: picture is ", image.width, " x ", image.height, " with ", image.rgb.size(), " bytes");
  if (width == image.width && height == image.height) return image;

  const int64_t row_bytes = 3 * static_cast<int64_t>(width);
  Image out{width, height, std::vector<uint8_t>(static_cast<size_t>(row_bytes * height))};
  if (height == image.height) {
    RowWindow columns(image, width, 1, filter);
    for (int y = 0; y < height; ++y) std::memcpy(&out.rgb[y * row_bytes], columns.rows(y, 1), row_bytes);
    return out;
  }
  const Resampler resampler(image.height, height, filter);
  RowWindow columns(image, width, resampler.most_taps(), filter);
  Plane row(1, width);
  for (int y = 0; y < height; ++y) {
    const uint8_t* rows = columns.rows(resampler.first(y), resampler.count(y));
    resampler.row(y, rows, columns.stride(), row_bytes, row.row(0));
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
