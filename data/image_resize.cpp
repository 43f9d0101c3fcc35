// Resampling as Pillow does it, to the bit.
//
//   scale   = in / out,  reach = max(scale, 1)                        the filter widens when a picture shrinks
//   centre  = (i + 0.5) * scale                                       of output i, in input coordinates
//   weight  = filter((j + 0.5 - centre) / reach), normalised to sum 1 in double, then rounded to 22-bit fixed point
//   out[i]  = clip((2^21 + sum_j weight[j] * in[j]) >> 22)            in int32; a byte again after each pass
//
// Columns first, then rows; a pass whose side already has the wanted size is left out.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "data/image.h"

// The inner loops are compiled for several instruction sets and chosen when the program is loaded. The sanitizers'
// own start-up comes later than that choice, so their builds do without.
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define NANOVLM_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define NANOVLM_CLONES
#endif

namespace nanovlm {
namespace {

constexpr int kFractionBits = 22;  // 8 bits of picture + 22 + sign and one to spare = 32
constexpr int32_t kHalf = 1 << (kFractionBits - 1);

constexpr int kChunk = 64;                                     // bytes of a row that the row pass sums up at a time
constexpr int kRows = 4;                                       // rows that the column pass takes at a time
using Rows = int32_t __attribute__((vector_size(kRows * 4)));  // one value of each

double triangle(double x) {
  x = std::abs(x);
  return x < 1 ? 1 - x : 0;
}

double cubic(double x) {  // Keys' kernel with a = -0.5
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

// Output i is the sum over t < count[i] of weight[start[i] + t] * input[first[i] + t].
struct Taps {
  std::vector<int> first, count;
  std::vector<int64_t> start;
  std::vector<int32_t> weight;
};

Taps make_taps(int in, int out, Filter filter) {
  const auto f = filter == Filter::bilinear ? triangle : cubic;
  const double scale = static_cast<double>(in) / out, reach = std::max(scale, 1.0);
  const double support = (filter == Filter::bilinear ? 1.0 : 2.0) * reach;
  Taps taps;
  std::vector<double> w;
  for (int i = 0; i < out; ++i) {
    const double centre = (i + 0.5) * scale, inverse = 1.0 / reach;
    const int first = std::max(static_cast<int>(centre - support + 0.5), 0);
    const int last = std::min(static_cast<int>(centre + support + 0.5), in);
    double sum = 0;
    w.clear();
    for (int j = first; j < last; ++j) {
      w.push_back(f((j - centre + 0.5) * inverse));
      sum += w.back();
    }
    taps.first.push_back(first);
    taps.count.push_back(last - first);
    taps.start.push_back(static_cast<int64_t>(taps.weight.size()));
    for (const double v : w) {
      const double fixed = (sum != 0 ? v / sum : v) * (1 << kFractionBits);
      taps.weight.push_back(static_cast<int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
  }
  return taps;
}

// Rows of RGB with room behind each, so that a chunk may be read or written at any pixel.
struct Plane {
  int64_t rows, stride;
  std::vector<uint8_t> bytes;

  Plane(int64_t rows, int64_t width)
      : rows(rows), stride((3 * width + 2 * kChunk - 1) / kChunk * kChunk), bytes(rows * stride) {}
  uint8_t* row(int64_t y) { return bytes.data() + y * stride; }
  const uint8_t* row(int64_t y) const { return bytes.data() + y * stride; }
};

int32_t load_pixel(const uint8_t* at) {  // red in the low byte, and some other pixel's byte at the top
  int32_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

inline __attribute__((always_inline)) Rows to_byte(Rows sum) {
  sum >>= kFractionBits;
  return sum < 0 ? Rows{} : sum > 255 ? Rows{} + 255 : sum;
}

// in[kRows] -> out[kRows], each a row of RGB: the rows share their weights, so a vector holds a pixel of each. The byte
// written behind a pixel is overwritten by the next one.
NANOVLM_CLONES void resample_columns(const uint8_t* const in[kRows], uint8_t* const out[kRows], const Taps& taps,
                                     int width) {
  for (int x = 0; x < width; ++x) {
    const int32_t* weight = &taps.weight[taps.start[x]];
    const int64_t first = 3 * static_cast<int64_t>(taps.first[x]);
    const uint8_t* const at[kRows] = {in[0] + first, in[1] + first, in[2] + first, in[3] + first};
    Rows red = Rows{} + kHalf, green = red, blue = red;
    for (int t = 0; t < taps.count[x]; ++t) {
      const Rows pixel = {load_pixel(at[0] + 3 * t), load_pixel(at[1] + 3 * t), load_pixel(at[2] + 3 * t),
                          load_pixel(at[3] + 3 * t)};
      red += (pixel & 255) * weight[t];
      green += (pixel >> 8 & 255) * weight[t];
      blue += (pixel >> 16 & 255) * weight[t];
    }
    const Rows pixel = to_byte(red) | to_byte(green) << 8 | to_byte(blue) << 16;
    for (int r = 0; r < kRows; ++r) {
      const int32_t word = pixel[r];
      std::memcpy(out[r] + 3 * x, &word, sizeof word);
    }
  }
}

// One output row of `bytes` bytes from `count` input rows.
NANOVLM_CLONES void resample_rows(const uint8_t* in, int64_t stride, const int32_t* weight, int count, int64_t bytes,
                                  uint8_t* out) {
  for (int64_t i = 0; i < bytes; i += kChunk) {
    int32_t sum[kChunk];
    for (int j = 0; j < kChunk; ++j) sum[j] = kHalf;
    for (int t = 0; t < count; ++t) {
      const uint8_t* from = in + t * stride + i;
      for (int j = 0; j < kChunk; ++j) sum[j] += from[j] * weight[t];
    }
    for (int j = 0; j < kChunk; ++j) out[i + j] = static_cast<uint8_t>(std::clamp(sum[j] >> kFractionBits, 0, 255));
  }
}

// [pixels, 3] bytes to [3, pixels], each divided by 255.
NANOVLM_CLONES void to_planes(const uint8_t* rgb, int64_t pixels, float* chw) {
  float* const red = chw;
  float* const green = chw + pixels;
  float* const blue = chw + 2 * pixels;
  for (int64_t i = 0; i < pixels; ++i) {
    red[i] = static_cast<float>(rgb[3 * i]) / 255.0f;
    green[i] = static_cast<float>(rgb[3 * i + 1]) / 255.0f;
    blue[i] = static_cast<float>(rgb[3 * i + 2]) / 255.0f;
  }
}

NANOVLM_CLONES void to_planes(const uint8_t* rgb, int64_t pixels, uint8_t* chw) {
  for (int64_t i = 0; i < pixels; ++i)
    for (int64_t channel = 0; channel < 3; ++channel) chw[channel * pixels + i] = rgb[3 * i + channel];
}

Plane resize_width(const Image& image, int width, Filter filter) {
  const int64_t row_bytes = 3 * static_cast<int64_t>(image.width);
  Plane out(image.height, width);
  if (width == image.width) {
    for (int y = 0; y < image.height; ++y) std::memcpy(out.row(y), &image.rgb[y * row_bytes], row_bytes);
    return out;
  }
  const Taps taps = make_taps(image.width, width, filter);
  Plane last(1, image.width), spare(1, width);  // the image itself has no room behind its last row
  std::memcpy(last.row(0), &image.rgb[(image.height - 1) * row_bytes], row_bytes);
  for (int y = 0; y < image.height; y += kRows) {
    const uint8_t* from[kRows];
    uint8_t* to[kRows];
    for (int r = 0; r < kRows; ++r) {
      from[r] = y + r < image.height - 1 ? &image.rgb[(y + r) * row_bytes] : last.row(0);
      to[r] = y + r < image.height ? out.row(y + r) : spare.row(0);
    }
    resample_columns(from, to, taps, width);
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
  const Taps taps = make_taps(image.height, height, filter);
  Plane row(1, width);
  for (int y = 0; y < height; ++y) {
    resample_rows(columns.row(taps.first[y]), columns.stride, &taps.weight[taps.start[y]], taps.count[y], row_bytes,
                  row.row(0));
    std::memcpy(&out.rgb[y * row_bytes], row.row(0), row_bytes);
  }
  return out;
}

namespace {

template <class T>
void resized_to_planes(const Image& image, int size, T* chw) {
  const int64_t pixels = static_cast<int64_t>(size) * size;
  if (image.width == size && image.height == size)
    to_planes(image.rgb.data(), pixels, chw);
  else
    to_planes(resize(image, size, size).rgb.data(), pixels, chw);
}

}  // namespace

void image_to_tensor(const Image& image, int size, float* chw) { resized_to_planes(image, size, chw); }
void image_to_tensor(const Image& image, int size, uint8_t* chw) { resized_to_planes(image, size, chw); }

}  // namespace nanovlm
