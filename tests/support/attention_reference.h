// The formula of attention, as in tests/support/reference.h: Real = double is exact, Real = float rounds where
// kernels/attention/attention.h says. Operands are dense: q, o and d_o [R, H, D], k and v [R, G, D], lse [R, H].
#pragma once
#include "tests/support/reference.h"

namespace nanovlm::testing::reference {

struct AttentionSetting {
  std::vector<int32_t> bounds;  // [S + 1]
  int H, G, D;
  bool causal;
  double scale;
  std::vector<uint8_t> key_mask;   // [R], or empty
  Values cos, sin;                 // [positions, D / 2], or empty
  std::vector<int32_t> positions;  // [R], or empty

  int64_t R() const { return bounds.back(); }
};

struct AttentionResult {
  Values o, lse;
};

struct AttentionGradients {
  Values dq, dk, dv;
  double dq_terms = 0, dk_terms = 0;  // largest sum of magnitudes behind an entry: the entries themselves may cancel
};

// x[R, heads, D] turned by each row's angle, or back.
template <class Real>
Values rope(const Values& x, const Values& cos, const Values& sin, const std::vector<int32_t>& positions, int heads,
            int D, bool inverse, DType dtype) {
  Values y(x.size());
  const int half = D / 2;
  for (size_t at = 0; at < x.size(); at += D)
    for (int d = 0; d < half; ++d) {
      const int64_t angle = int64_t(positions[at / D / heads]) * half + d;
      const Real a = Real(x[at + d]), b = Real(x[at + d + half]), c = Real(cos[angle]), s = Real(sin[angle]);
      y[at + d] = stored(inverse ? a * c + b * s : a * c - b * s, dtype);
      y[at + d + half] = stored(inverse ? b * c - a * s : b * c + a * s, dtype);
    }
  return y;
}

// Calls f(segment's first row, its end, row) for every row.
template <class F>
void for_each_row(const AttentionSetting& s, const F& f) {
  for (size_t i = 0; i + 1 < s.bounds.size(); ++i)
    for (int64_t row = s.bounds[i]; row < s.bounds[i + 1]; ++row) f(s.bounds[i], s.bounds[i + 1], row);
}

inline Values rotated(const AttentionSetting& s, const Values& x, int heads, bool inverse, DType dtype, bool exact) {
  std::vector<int32_t> positions = s.positions;
  if (positions.empty())
    for_each_row(s, [&](int64_t begin, int64_t, int64_t row) { positions.push_back(row - begin); });
  if (!s.cos.empty() && exact) return rope<double>(x, s.cos, s.sin, positions, heads, s.D, inverse, dtype);
  if (!s.cos.empty()) return rope<float>(x, s.cos, s.sin, positions, heads, s.D, inverse, dtype);
  Values y = x;
  for (double& value : y) value = exact ? value : stored(static_cast<float>(value), dtype);
  return y;
}

// The keys that a row attends to, and whether its mask has left it none: then they are those it would have seen.
struct Sight {
  std::vector<int64_t> keys;
  bool keyless;
};

inline Sight sight(const AttentionSetting& s, int64_t begin, int64_t end, int64_t row) {
  Sight all{{}, true}, masked{{}, false};
  for (int64_t j = begin; j < (s.causal ? row + 1 : end); ++j) {
    all.keys.push_back(j);
    if (s.key_mask.empty() || s.key_mask[j]) masked.keys.push_back(j);
  }
  return masked.keys.empty() ? all : masked;
}

template <class Real>
Real dot_of(const Values& a, int64_t i, const Values& b, int64_t j, int D) {
  Real sum = 0;
  for (int d = 0; d < D; ++d) sum += Real(a[i * D + d]) * Real(b[j * D + d]);
  return sum;
}

template <class Real>
AttentionResult attention(const AttentionSetting& s, const Values& q_in, const Values& k_in, const Values& v,
                          DType dtype) {
  constexpr bool exact = std::is_same_v<Real, double>;
  const Values q = rotated(s, q_in, s.H, false, dtype, exact), k = rotated(s, k_in, s.G, false, dtype, exact);
  AttentionResult result{Values(q.size()), Values(s.R() * s.H)};
  for_each_row(s, [&](int64_t begin, int64_t end, int64_t row) {
    const Sight seen = sight(s, begin, end, row);
    for (int h = 0; h < s.H; ++h) {
      const int g = h / (s.H / s.G);
      std::vector<Real> score;
      for (int64_t j : seen.keys)
        score.push_back(seen.keyless ? 0 : Real(s.scale) * dot_of<Real>(q, row * s.H + h, k, j * s.G + g, s.D));
      const Real max = *std::max_element(score.begin(), score.end());
      Real sum = 0;
      for (Real x : score) sum += std::exp(x - max);
      for (int d = 0; d < s.D; ++d) {
        Real o = 0;
        for (size_t i = 0; i < score.size(); ++i)
          o += stored(std::exp(score[i] - max) / sum, dtype) * Real(v[(seen.keys[i] * s.G + g) * s.D + d]);
        result.o[(row * s.H + h) * s.D + d] = stored(o, dtype);
      }
      result.lse[row * s.H + h] = max + std::log(sum);
    }
  });
  return result;
}

template <class Real>
AttentionGradients attention_backward(const AttentionSetting& s, const Values& q_in, const Values& k_in,
                                      const Values& v, const Values& o, const Values& lse, const Values& d_o,
                                      DType dtype) {
  constexpr bool exact = std::is_same_v<Real, double>;
  const Values q = rotated(s, q_in, s.H, false, dtype, exact), k = rotated(s, k_in, s.G, false, dtype, exact);
  AttentionGradients result{Values(q.size()), Values(k.size()), Values(v.size())};
  Values dk_terms(k.size());
  const auto add = [](double& sum, Real term) { sum = Real(sum) + term; };
  for_each_row(s, [&](int64_t begin, int64_t end, int64_t row) {
    const Sight seen = sight(s, begin, end, row);
    for (int h = 0; h < s.H; ++h) {
      const int64_t head = row * s.H + h;
      const Real delta = dot_of<Real>(d_o, head, o, head, s.D);
      Values dq_terms(s.D);
      for (int64_t j : seen.keys) {
        const int64_t key = j * s.G + h / (s.H / s.G);
        const Real score = seen.keyless ? 0 : Real(s.scale) * dot_of<Real>(q, head, k, key, s.D);
        const Real p = std::exp(score - Real(lse[head])), dp = dot_of<Real>(d_o, head, v, key, s.D);
        const Real ds = stored(Real(s.scale) * p * (dp - delta), dtype);
        for (int d = 0; d < s.D; ++d) {
          add(result.dv[key * s.D + d], stored(p, dtype) * Real(d_o[head * s.D + d]));
          add(result.dq[head * s.D + d], ds * Real(k[key * s.D + d]));
          add(result.dk[key * s.D + d], ds * Real(q[head * s.D + d]));
          const double size = s.scale * p * (std::abs(dp) + std::abs(delta));
          dq_terms[d] += size * std::abs(k[key * s.D + d]);
          dk_terms[key * s.D + d] += size * std::abs(q[head * s.D + d]);
        }
      }
      result.dq_terms = std::max(result.dq_terms, max_magnitude(dq_terms));
    }
  });
  result.dk_terms = max_magnitude(dk_terms);
  result.dq = rotated(s, result.dq, s.H, true, dtype, exact);
  result.dk = rotated(s, result.dk, s.G, true, dtype, exact);
  for (double& value : result.dv) value = stored(Real(value), dtype);
  return result;
}

}  // namespace nanovlm::testing::reference
