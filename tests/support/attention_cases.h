// Operands for attention's tests: settings at awkward sizes, and rows apart from one another.
#pragma once
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "kernels/attention/attention.h"
#include "tests/support/attention_reference.h"
#include "tests/support/catch.h"
#include "tests/support/memory.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {

using reference::AttentionSetting;

enum class Mask { none, left, vlm, full, random };
inline constexpr const char* kMaskNames[] = {"none", "left", "vlm", "full", "random"};

struct Case {
  std::vector<int32_t> lengths;
  int H, G, D;
  bool causal, rope;
  Mask mask = Mask::none;
  double size = 1;  // of q: 100 gives scores in the thousands
  int key_gap = 8;  // entries between rows of k: odd ones fit no vector
};

// One row; a vector and one more or less; the tile, the block and the chunk and one more; segments of no rows. Of every
// head size that kernels are made for some with three tiles of 64 keys: with less, what is wrong between tiles may not
// show.
inline const Case kCases[] = {
    {{1}, 1, 1, 8, true, true},
    {{1, 1, 1}, 3, 1, 3, false, false},
    {{31, 0, 33}, 2, 1, 32, true, true},
    {{0, 5, 1, 17, 0}, 6, 2, 3, true, false},
    {{64, 65}, 2, 1, 64, true, true, Mask::vlm},
    {{64, 65}, 2, 1, 64, true, true, Mask::vlm, 1, 3},
    {{5, 0, 140}, 2, 1, 64, true, true, Mask::left},
    {{132}, 1, 1, 64, false, false},
    {{9, 40}, 4, 2, 8, true, true, Mask::left, 1, 3},
    {{40, 9}, 4, 2, 8, false, true, Mask::left},
    {{9, 40}, 2, 1, 8, true, false, Mask::full},
    {{9, 40}, 2, 1, 8, false, false, Mask::full},
    {{130}, 3, 1, 16, true, true, Mask::random},
    {{33}, 3, 1, 128, true, true},
    {{20}, 1, 1, 96, false, true, Mask::random},
    {{260}, 1, 1, 8, true, true},
    {{50}, 2, 2, 32, true, false, Mask::none, 100},
    {{128, 17}, 6, 2, 64, true, true},
    {{196}, 1, 1, 64, false, false},
    {{250, 3}, 2, 2, 32, true, true, Mask::vlm},
    {{70, 20}, 8, 1, 32, true, true, Mask::left},
    {{9}, 17, 1, 32, false, true},
    {{2}, 3, 1, 64, true, true},
    {{127}, 3, 1, 64, true, true, Mask::vlm},
    {{129}, 1, 1, 64, false, false},
    {{65, 208, 3}, 3, 1, 64, true, true, Mask::random},
    {{207, 0, 64}, 2, 2, 64, false, true, Mask::left},
    {{40, 22, 64}, 3, 1, 64, true, false, Mask::none, 30},
    {{31, 65, 1, 0, 33}, 3, 1, 48, true, true, Mask::left},
    {{197}, 3, 1, 16, false, true, Mask::random},
    {{256, 31}, 1, 1, 32, true, true},
    {{257, 2}, 2, 2, 5, true, false, Mask::left},
    {{130}, 1, 1, 128, true, true},
    {{65, 129}, 2, 1, 128, false, true, Mask::left},
    {{130}, 1, 1, 32, true, true, Mask::vlm},
    {{257}, 1, 1, 64, true, true, Mask::left},
};

inline std::vector<uint8_t> mask_of(Mask kind, const std::vector<int32_t>& lengths, Random& random) {
  std::vector<uint8_t> mask;
  if (kind == Mask::none) return mask;
  for (int32_t length : lengths)
    for (int32_t i = 0; i < length; ++i)
      mask.push_back(kind == Mask::left     ? i >= length / 3
                     : kind == Mask::vlm    ? i < length / 4 || i >= length / 2
                     : kind == Mask::random ? random.integers(1, 3).values()[0] > 0
                                            : 0);
  return mask;
}

inline AttentionSetting setting_of(const Case& c, Random& random) {
  AttentionSetting s{{0}, c.H, c.G, c.D, c.causal, 1 / std::sqrt(double(c.D)), mask_of(c.mask, c.lengths, random),
                     {},  {},  {}};
  s.scale = static_cast<float>(s.scale);
  for (int32_t length : c.lengths) s.bounds.push_back(s.bounds.back() + length);
  if (!c.rope) return s;
  // Any tables will do: a kernel must not assume that positions count up from 0.
  const int64_t positions = s.R() + 5;
  s.cos = random.normal(positions * c.D / 2, DType::f32).values();
  s.sin = random.normal(positions * c.D / 2, DType::f32).values();
  if (c.lengths.size() > 1)
    for (double p : random.integers(s.R(), positions).values()) s.positions.push_back(static_cast<int32_t>(p));
  return s;
}

// A dense operand set into rows `stride` apart; what lies between is NaN.
inline Buffer spread(const Values& dense, int64_t width, int64_t stride, DType dtype) {
  const int64_t rows = dense.size() / width;
  Values values(rows * stride, std::nan(""));
  for (int64_t r = 0; r < rows; ++r) std::copy_n(&dense[r * width], width, &values[r * stride]);
  return Buffer(values, dtype);
}

// The dense operand back again. Nothing may have been written between the rows.
inline Values gathered(const Buffer& buffer, int64_t width, int64_t stride) {
  const Values values = buffer.values();
  Values dense;
  bool untouched = true;
  for (size_t i = 0; i < values.size(); ++i)
    if (int64_t(i) % stride < width)
      dense.push_back(values[i]);
    else
      untouched = untouched && std::isnan(values[i]);
  CHECK(untouched);
  return dense;
}

struct Operands {
  AttentionSetting setting;
  DType dtype;
  Values q, k, v, d_o;
  Buffer bounds, key_mask, positions, cos, sin;
  int64_t q_stride, k_stride, v_stride;

  Operands(const Case& c, DType dtype, Random random)
      : setting(setting_of(c, random)),
        dtype(dtype),
        q(random.normal(setting.R() * c.H * c.D, dtype, c.size).values()),
        k(random.normal(setting.R() * c.G * c.D, dtype).values()),
        v(random.normal(setting.R() * c.G * c.D, dtype).values()),
        d_o(random.normal(setting.R() * c.H * c.D, dtype).values()),
        bounds(Values(setting.bounds.begin(), setting.bounds.end()), DType::i32),
        key_mask(Values(setting.key_mask.begin(), setting.key_mask.end()), DType::u8),
        positions(Values(setting.positions.begin(), setting.positions.end()), DType::i32),
        cos(setting.cos, DType::f32),
        sin(setting.sin, DType::f32),
        q_stride(c.H * c.D + 8),
        k_stride(c.G * c.D + c.key_gap),
        v_stride(c.G * c.D) {}

  int64_t longest() const {
    int64_t longest = 0;
    for (size_t i = 0; i + 1 < setting.bounds.size(); ++i)
      longest = std::max<int64_t>(longest, setting.bounds[i + 1] - setting.bounds[i]);
    return longest;
  }

  kernels::AttentionShape shape() {
    const AttentionSetting& s = setting;
    return {s.R(),     static_cast<int64_t>(s.bounds.size()) - 1,
            bounds,    longest(),
            key_mask,  s.H,
            s.G,       s.D,
            s.causal,  static_cast<float>(s.scale),
            cos,       sin,
            positions, dtype};
  }
};

struct Forward {
  Buffer o, lse;
};

// What run(attention) makes of the operands.
template <class Run>
Forward forward_by(const Run& run, Operands& x, const char* kernel = nullptr) {
  const AttentionSetting& s = x.setting;
  Forward out{Buffer(s.R() * s.H * s.D, x.dtype), Buffer(s.R() * s.H, DType::f32)};
  Buffer q = spread(x.q, s.H * s.D, x.q_stride, x.dtype), k = spread(x.k, s.G * s.D, x.k_stride, x.dtype);
  Buffer v = spread(x.v, s.G * s.D, x.v_stride, x.dtype);
  run(kernels::Attention{x.shape(), q, k, v, x.q_stride, x.k_stride, x.v_stride, out.o, out.lse, kernel});
  return out;
}

struct Backward {
  Buffer dq, dk, dv;
};

template <class Run>
Backward backward_by(const Run& run, Operands& x, Buffer o, Buffer lse, const char* kernel = nullptr) {
  const AttentionSetting& s = x.setting;
  Backward out{Buffer(s.R() * x.q_stride, x.dtype), Buffer(s.R() * x.k_stride, x.dtype),
               Buffer(s.R() * x.v_stride, x.dtype)};
  Buffer q = spread(x.q, s.H * s.D, x.q_stride, x.dtype), k = spread(x.k, s.G * s.D, x.k_stride, x.dtype);
  Buffer v = spread(x.v, s.G * s.D, x.v_stride, x.dtype), d_o(x.d_o, x.dtype);
  run(kernels::AttentionBackward{x.shape(), q, k, v, x.q_stride, x.k_stride, x.v_stride, o, d_o, lse, out.dq, out.dk,
                                 out.dv, kernel});
  return out;
}

#if defined(NANOVLM_SIMT_INSTRUMENTED)  // an access costs some hundred times its own time
inline constexpr int kMostRows = 130, kMostRowsTwice = 20;
#else
inline constexpr int kMostRows = 1000, kMostRowsTwice = 70;
#endif

// Calls f(operands) for every case of up to `rows` rows, and every dtype.
template <class F>
void for_each_case(const F& f, int rows = kMostRows, std::span<const Case> cases = kCases) {
  uint64_t seed = 0;
  for (const Case& c : cases)
    for (DType dtype : kFloatDTypes) {
      if (std::accumulate(c.lengths.begin(), c.lengths.end(), 0) > rows) continue;
      INFO("segments " << Catch::Detail::stringify(c.lengths) << ", H " << c.H << ", G " << c.G << ", D " << c.D
                       << (c.causal ? ", causal" : "") << (c.rope ? ", rope" : "") << ", mask "
                       << kMaskNames[static_cast<int>(c.mask)] << ", " << name_of(dtype));
      Operands x(c, dtype, Random(++seed));
      f(x);
    }
}

}  // namespace nanovlm::testing
