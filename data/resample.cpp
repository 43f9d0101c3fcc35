#include "data/resample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace nanovlm {
namespace {

constexpr int kFractionBits = 22;  // 8 bits of picture + 22 + sign and one to spare = 32
constexpr int32_t kHalf = 1 << (kFractionBits - 1);
constexpr int kRows = Resampler::kRows, kChunk = Resampler::kChunk;
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

#if defined(__x86_64__)
using Words = int32_t __attribute__((vector_size(64)));

#define NANOVLM_BYTE_PRODUCTS [[gnu::target("avx512bw,avx512vnni")]]

// The sums of the three bytes' products.
struct ByteSums {
  __m512i low = (__m512i)(Words{} + kHalf), middle = (__m512i)Words{}, high = middle;

  NANOVLM_BYTE_PRODUCTS void add(__m512i values, const uint32_t word[3]) {
    low = _mm512_dpbusd_epi32(low, values, _mm512_set1_epi32(static_cast<int>(word[0])));
    middle = _mm512_dpbusd_epi32(middle, values, _mm512_set1_epi32(static_cast<int>(word[1])));
    high = _mm512_dpbusd_epi32(high, values, _mm512_set1_epi32(static_cast<int>(word[2])));
  }
  NANOVLM_BYTE_PRODUCTS Words rounded() const {
    return ((Words)low + ((Words)middle << 8) + ((Words)high << 16)) >> kFractionBits;
  }
};

// resample_columns by products of bytes, four taps at once. A vector holds four pixels of each row.
NANOVLM_BYTE_PRODUCTS void resample_columns(const uint8_t* const in[kRows], uint8_t* const out[kRows], const Taps& taps,
                                            const ByteTaps& bytes, int width) {
  const __m512i by_channel =
      _mm512_maskz_broadcast_i32x4(0xffff, _mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1));
  for (int x = 0; x < width; ++x) {
    ByteSums sums;
    int64_t at = 3 * static_cast<int64_t>(taps.first[x]);
    for (int64_t word = bytes.start[x]; word < bytes.start[x + 1]; word += 3, at += 12) {
      __m512i quad = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i*)(in[0] + at)));
      quad = _mm512_inserti32x4(quad, _mm_loadu_si128((const __m128i*)(in[1] + at)), 1);
      quad = _mm512_inserti32x4(quad, _mm_loadu_si128((const __m128i*)(in[2] + at)), 2);
      quad = _mm512_inserti32x4(quad, _mm_loadu_si128((const __m128i*)(in[3] + at)), 3);
      sums.add(_mm512_shuffle_epi8(quad, by_channel), &bytes.words[word]);
    }
    const Words sum = sums.rounded();
    const __m128i pixel = _mm512_maskz_cvtusepi32_epi8(0xffff, (__m512i)(sum < 0 ? Words{} : sum));
    _mm_storeu_si32(out[0] + 3 * x, pixel);
    _mm_storeu_si32(out[1] + 3 * x, _mm_shuffle_epi32(pixel, 1));
    _mm_storeu_si32(out[2] + 3 * x, _mm_shuffle_epi32(pixel, 2));
    _mm_storeu_si32(out[3] + 3 * x, _mm_shuffle_epi32(pixel, 3));
  }
}

// resample_rows, likewise. A vector holds the bytes of four rows at a place side by side.
NANOVLM_BYTE_PRODUCTS void resample_rows(const uint8_t* in, int64_t stride, const uint32_t* words, int count,
                                         int64_t bytes, uint8_t* out) {
  for (int64_t i = 0; i < bytes; i += kChunk) {
    ByteSums sums[4];  // of bytes 0 to 3, 4 to 7, 8 to 11 and 12 to 15 of each 16
    const uint32_t* word = words;
    for (int t = 0; t < count; t += 4, word += 3) {
      __m512i row[4];
      for (int r = 0; r < 4; ++r) row[r] = _mm512_loadu_si512(in + std::min(t + r, count - 1) * stride + i);
      const __m512i ab = _mm512_unpacklo_epi8(row[0], row[1]), cd = _mm512_unpacklo_epi8(row[2], row[3]);
      const __m512i ab_behind = _mm512_unpackhi_epi8(row[0], row[1]), cd_behind = _mm512_unpackhi_epi8(row[2], row[3]);
      sums[0].add(_mm512_unpacklo_epi16(ab, cd), word);
      sums[1].add(_mm512_unpackhi_epi16(ab, cd), word);
      sums[2].add(_mm512_unpacklo_epi16(ab_behind, cd_behind), word);
      sums[3].add(_mm512_unpackhi_epi16(ab_behind, cd_behind), word);
    }
    __m512i pairs[2];
    for (int k = 0; k < 2; ++k)
      pairs[k] = _mm512_packs_epi32((__m512i)sums[2 * k].rounded(), (__m512i)sums[2 * k + 1].rounded());
    _mm512_storeu_si512(out + i, _mm512_packus_epi16(pairs[0], pairs[1]));
  }
}
#endif

}  // namespace

Taps::Taps(int in, int out, Filter filter) {
  const auto f = filter == Filter::bilinear ? triangle : cubic;
  const double scale = static_cast<double>(in) / out, reach = std::max(scale, 1.0);
  const double support = (filter == Filter::bilinear ? 1.0 : 2.0) * reach;
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
    this->first.push_back(first);
    count.push_back(last - first);
    start.push_back(static_cast<int64_t>(weight.size()));
    for (const double v : w) {
      const double fixed = (sum != 0 ? v / sum : v) * (1 << kFractionBits);
      weight.push_back(static_cast<int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
  }
}

ByteTaps::ByteTaps(const Taps& taps) {
  for (size_t i = 0; i < taps.count.size(); ++i) {
    start.push_back(static_cast<int64_t>(words.size()));
    for (int t = 0; t < taps.count[i]; t += 4) {
      uint32_t word[3] = {};
      for (int k = 0; k < 4 && t + k < taps.count[i]; ++k) {
        int32_t rest = taps.weight[static_cast<size_t>(taps.start[i] + t + k)];
        for (uint32_t& part : word) {
          const auto byte = static_cast<int8_t>(rest);
          part |= static_cast<uint32_t>(static_cast<uint8_t>(byte)) << 8 * k;
          rest = (rest - byte) >> 8;
        }
      }
      words.insert(words.end(), word, word + 3);
    }
  }
  start.push_back(static_cast<int64_t>(words.size()));
}

bool Resampler::has_byte_products() {
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni");
  return has;
#else
  return false;
#endif
}

Resampler::Resampler(int in, int out, Filter filter, bool byte_products) : taps_(in, out, filter) {
  check(!byte_products || has_byte_products(), "resize: this processor has no products of bytes");
  if (byte_products) bytes_ = ByteTaps(taps_);
}

void Resampler::columns(const uint8_t* const in[kRows], uint8_t* const out[kRows]) const {
  const auto width = static_cast<int>(taps_.count.size());
#if defined(__x86_64__)
  if (!bytes_.start.empty()) return resample_columns(in, out, taps_, bytes_, width);
#endif
  resample_columns(in, out, taps_, width);
}

void Resampler::row(int y, const uint8_t* in, int64_t stride, int64_t bytes, uint8_t* out) const {
#if defined(__x86_64__)
  if (!bytes_.start.empty())
    return resample_rows(in, stride, &bytes_.words[bytes_.start[y]], taps_.count[y], bytes, out);
#endif
  resample_rows(in, stride, &taps_.weight[taps_.start[y]], taps_.count[y], bytes, out);
}

}  // namespace nanovlm
