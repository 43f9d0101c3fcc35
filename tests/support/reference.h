// One plain formula an operation, obviously right and slow. Every backend is measured against it.
//
// Each is a template over the arithmetic. Real = double is the exact result; Real = float is the same formula in fp32,
// in plain order, rounded to `dtype` where the contract rounds: the yardstick of tests/support/values.h. Operands
// come as the exact values of what the kernel reads; an empty one stands for null. Where it costs nothing in plainness,
// all threads take part: benches check full-size results, and the formula takes far longer than what it checks.
#pragma once
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/parallel.h"
#include "kernels/types.h"
#include "tests/support/values.h"

namespace nanovlm::testing::reference {

// What storing `value` as `dtype` makes of it. Exact arithmetic stores exactly.
template <class Real>
Real stored(Real value, DType dtype) {
  if constexpr (std::is_same_v<Real, float>)
    if (dtype == DType::bf16) return static_cast<float>(bf16(value));
  return value;
}

// Calls f(i) for every i below n, on all threads where there are more than `grain`. No call may depend on another.
template <class F>
void for_each_of(size_t n, int64_t grain, const F& f) {
  kernels::parallel_for(static_cast<int64_t>(n), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}
constexpr int64_t kFewEntries = 4096, kFewRows = 8;

// ---- norms

struct Norm {
  Values sum, y, m, r;
};

struct NormGradients {
  Values dx, ddelta, dw, db;
};

// x' = x + delta, and its mean (0 unless `centered`) and 1 / sqrt(mean((x' - m)^2) + eps), row by row
template <class Real>
Norm norm_statistics(const Values& x, const Values& delta, int64_t C, double eps, bool centered) {
  const int64_t R = static_cast<int64_t>(x.size()) / C;
  Norm result{Values(R * C), Values(R * C), Values(R), Values(R)};
  for_each_of(R, kFewRows, [&](int64_t row) {
    double* sum = &result.sum[row * C];
    for (int64_t c = 0; c < C; ++c)
      sum[c] = delta.empty() ? Real(x[row * C + c]) : Real(x[row * C + c]) + Real(delta[row * C + c]);
    Real mean = 0, variance = 0;
    for (int64_t c = 0; centered && c < C; ++c) mean += Real(sum[c]);
    mean /= Real(C);
    for (int64_t c = 0; c < C; ++c) variance += (Real(sum[c]) - mean) * (Real(sum[c]) - mean);
    variance /= Real(C);
    result.m[row] = mean;
    result.r[row] = 1 / std::sqrt(variance + Real(eps));
  });
  return result;
}

// RMSNorm where b is empty and not `centered`; LayerNorm otherwise.
template <class Real>
Norm norm(const Values& x, const Values& delta, const Values& w, const Values& b, int64_t C, double eps, DType dtype,
          bool centered) {
  Norm result = norm_statistics<Real>(x, delta, C, eps, centered);
  for_each_of(x.size(), kFewEntries, [&](int64_t i) {
    const int64_t row = i / C, c = i % C;
    const Real n = (Real(result.sum[i]) - Real(result.m[row])) * Real(result.r[row]);
    result.y[i] = stored(b.empty() ? n * Real(w[c]) : n * Real(w[c]) + Real(b[c]), dtype);
  });
  return result;
}

// x is x'. dw and db hold what was there before and are added to.
template <class Real>
NormGradients norm_backward(const Values& dy, const Values& x, const Values& w, const Values& dsum, const Values& dw,
                            const Values& db, int64_t C, double eps, DType dtype, bool centered) {
  const int64_t R = static_cast<int64_t>(x.size()) / C;
  const Norm forward = norm_statistics<Real>(x, {}, C, eps, centered);
  NormGradients result{Values(R * C), Values(R * C), dw, db};
  const auto n = [&](int64_t row, int64_t c) {
    return (Real(x[row * C + c]) - Real(forward.m[row])) * Real(forward.r[row]);
  };
  for_each_of(R, kFewRows, [&](int64_t row) {
    const auto g = [&](int64_t c) { return Real(dy[row * C + c]) * Real(w[c]); };
    Real mean_g = 0, mean_gn = 0;
    for (int64_t c = 0; centered && c < C; ++c) mean_g += g(c);
    for (int64_t c = 0; c < C; ++c) mean_gn += g(c) * n(row, c);
    mean_g /= Real(C);
    mean_gn /= Real(C);
    for (int64_t c = 0; c < C; ++c) {
      const Real dx = Real(forward.r[row]) * (g(c) - mean_g - n(row, c) * mean_gn);
      result.dx[row * C + c] = dsum.empty() ? dx : Real(dsum[row * C + c]) + dx;
      result.ddelta[row * C + c] = stored(Real(result.dx[row * C + c]), dtype);
    }
  });
  // Every thread takes all rows of some columns, so a sum keeps its order.
  kernels::parallel_for(C, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = 0; row < R; ++row)
      for (int64_t c = begin; c < end; ++c) {
        if (!dw.empty()) result.dw[c] = Real(result.dw[c]) + Real(dy[row * C + c]) * n(row, c);
        if (!db.empty()) result.db[c] = Real(result.db[c]) + Real(dy[row * C + c]);
      }
  });
  return result;
}

// ---- activations

template <class Real>
Real sigmoid(Real x) {
  return 1 / (1 + std::exp(-x));
}

template <class Real>
Values gelu(const Values& x, DType dtype) {
  Values y(x.size());
  for_each_of(x.size(), kFewEntries, [&](int64_t i) {
    const Real v = Real(x[i]), u = Real(std::sqrt(2 / M_PI)) * (v + Real(0.044715) * v * v * v);
    y[i] = stored(v / 2 * (1 + std::tanh(u)), dtype);
  });
  return y;
}

template <class Real>
Values gelu_backward(const Values& x, const Values& dy, DType dtype) {
  Values dx(x.size());
  for_each_of(x.size(), kFewEntries, [&](int64_t i) {
    const Real v = Real(x[i]), k = Real(std::sqrt(2 / M_PI));
    const Real t = std::tanh(k * (v + Real(0.044715) * v * v * v));
    const Real slope = (1 + t) / 2 + v / 2 * (1 - t * t) * k * (1 + 3 * Real(0.044715) * v * v);
    dx[i] = stored(Real(dy[i]) * slope, dtype);
  });
  return dx;
}

template <class Real>
Values swiglu(const Values& gate, const Values& up, DType dtype) {
  Values y(gate.size());
  for_each_of(y.size(), kFewEntries, [&](int64_t i) {
    const Real g = Real(gate[i]);
    y[i] = stored(g * sigmoid(g) * Real(up[i]), dtype);
  });
  return y;
}

struct SwigluGradients {
  Values dgate, dup;
};

template <class Real>
SwigluGradients swiglu_backward(const Values& gate, const Values& up, const Values& dy, DType dtype) {
  SwigluGradients result{Values(gate.size()), Values(gate.size())};
  for_each_of(gate.size(), kFewEntries, [&](int64_t i) {
    const Real g = Real(gate[i]), s = sigmoid(g);
    result.dgate[i] = stored(Real(dy[i]) * Real(up[i]) * s * (1 + g * (1 - s)), dtype);
    result.dup[i] = stored(Real(dy[i]) * g * s, dtype);
  });
  return result;
}

// ---- softmax over stored scores

template <class Real>
Values softmax(const Values& s, int64_t T, double scale, bool causal, DType out) {
  Values p(s.size());
  for_each_of(s.size() / T, kFewRows, [&](int64_t row) {
    const int64_t seen = causal ? row % T + 1 : T;
    const double* x = &s[row * T];
    const Real max = Real(*std::max_element(x, x + seen));
    Real sum = 0;
    for (int64_t t = 0; t < seen; ++t) sum += std::exp((Real(x[t]) - max) * Real(scale));
    for (int64_t t = 0; t < seen; ++t) p[row * T + t] = stored(std::exp((Real(x[t]) - max) * Real(scale)) / sum, out);
  });
  return p;
}

template <class Real>
Values softmax_backward(const Values& p, const Values& dp, int64_t T, double scale, DType dtype) {
  Values ds(p.size());
  for_each_of(p.size() / T, kFewRows, [&](int64_t row) {
    Real sum = 0;
    for (int64_t i = row * T; i < (row + 1) * T; ++i) sum += Real(p[i]) * Real(dp[i]);
    for (int64_t i = row * T; i < (row + 1) * T; ++i)
      ds[i] = stored(Real(scale) * Real(p[i]) * (Real(dp[i]) - sum), dtype);
  });
  return ds;
}

// ---- rows

inline Values gather_rows(const Values& x, const Values& index, int64_t C) {
  Values y;
  for (double r : index) y.insert(y.end(), x.begin() + int64_t(r) * C, x.begin() + (int64_t(r) + 1) * C);
  return y;
}

// y starts as what the rows hold before.
inline Values scatter_rows(const Values& x, const Values& index, int64_t C, Values y) {
  for (size_t r = 0; r < index.size(); ++r)
    std::copy(x.begin() + r * C, x.begin() + (r + 1) * C, y.begin() + int64_t(index[r]) * C);
  return y;
}

// dx starts as what it held before. index[r]: the row of dx that row r of dy belongs to.
template <class Real>
Values gather_rows_backward(const Values& dy, const Values& index, int64_t C, Values dx) {
  for (size_t r = 0; r < index.size(); ++r)
    for (int64_t c = 0; c < C; ++c) {
      double& sum = dx[int64_t(index[r]) * C + c];
      sum = Real(sum) + Real(dy[r * C + c]);
    }
  return dx;
}

// ---- loss

struct CrossEntropy {
  Values loss, dlogits;
};

template <class Real>
CrossEntropy cross_entropy(const Values& logits, const Values& targets, int64_t V, double scale, DType dtype) {
  CrossEntropy result{Values(targets.size()), Values(logits.size())};
  for_each_of(targets.size(), 1, [&](int64_t r) {
    const double* row = &logits[r * V];
    const Real max = Real(*std::max_element(row, row + V));
    Real sum = 0;
    for (int64_t v = 0; v < V; ++v) sum += std::exp(Real(row[v]) - max);
    result.loss[r] = max + std::log(sum) - Real(row[int64_t(targets[r])]);
    for (int64_t v = 0; v < V; ++v) {
      const Real p = std::exp(Real(row[v]) - max) / sum;
      result.dlogits[r * V + v] = stored(Real(scale) * (p - (v == targets[r] ? 1 : 0)), dtype);
    }
  });
  return result;
}

// ---- patches

// Calls f(row, c, k, pixel, position) for every product of the convolution: row of y, channel of y, column of the
// weight, index into images, index into position.
template <class F>
void for_each_patch_product(int64_t B, int64_t C, int64_t S, int64_t p, const F& f) {
  const int64_t grid = S / p, P = grid * grid, K = 3 * p * p;
  for (int64_t b = 0; b < B; ++b)
    for (int64_t i = 0; i < P; ++i)
      for (int64_t c = 0; c < C; ++c)
        for (int64_t k = 0; k < K; ++k) {
          const int64_t channel = k / (p * p), y = i / grid * p + k / p % p, x = i % grid * p + k % p;
          f(b * P + i, c, k, ((b * 3 + channel) * S + y) * S + x, i);
        }
}

template <class Real>
Values patch_embedding(const Values& images, const Values& weight, const Values& bias, const Values& position,
                       int64_t B, int64_t S, int64_t p, DType dtype) {
  const int64_t C = bias.size(), P = (S / p) * (S / p), K = 3 * p * p;
  Values y(B * P * C);
  for_each_patch_product(B, C, S, p, [&](int64_t row, int64_t c, int64_t k, int64_t pixel, int64_t) {
    double& sum = y[row * C + c];
    sum = Real(sum) + Real(weight[c * K + k]) * stored(Real(images[pixel]), dtype);
  });
  for (int64_t i = 0; i < B * P * C; ++i) {
    Real value = Real(y[i]) + Real(bias[i % C]);
    y[i] = position.empty() ? value : value + Real(position[i % (P * C)]);
  }
  return y;
}

struct PatchEmbeddingGradients {
  Values dweight, dbias, dposition, dimages;
};

// Each gradient starts at 0.
template <class Real>
PatchEmbeddingGradients patch_embedding_backward(const Values& images, const Values& weight, const Values& dy,
                                                 int64_t B, int64_t C, int64_t S, int64_t p, DType dtype) {
  const int64_t P = (S / p) * (S / p), K = 3 * p * p;
  PatchEmbeddingGradients result{Values(C * K), Values(C), Values(P * C), Values(images.size())};
  const auto add = [](double& sum, Real term) { sum = Real(sum) + term; };
  for_each_patch_product(B, C, S, p, [&](int64_t row, int64_t c, int64_t k, int64_t pixel, int64_t) {
    const Real slope = stored(Real(dy[row * C + c]), dtype);
    add(result.dweight[c * K + k], slope * stored(Real(images[pixel]), dtype));
    add(result.dimages[pixel], slope * Real(weight[c * K + k]));
  });
  for (double& value : result.dimages) value = stored(Real(value), dtype);
  for (int64_t i = 0; i < B * P * C; ++i) {
    add(result.dbias[i % C], Real(dy[i]));
    add(result.dposition[i % (P * C)], Real(dy[i]));
  }
  return result;
}

// [B, n, n, C] -> [B, n/f, n/f, f, f, C]
inline Values pixel_shuffle(const Values& x, int64_t B, int64_t C, int64_t n, int64_t f, bool inverse) {
  Values y(x.size());
  int64_t shuffled = 0;
  for (int64_t b = 0; b < B; ++b)
    for (int64_t row = 0; row < n / f; ++row)
      for (int64_t column = 0; column < n / f; ++column)
        for (int64_t dy = 0; dy < f; ++dy)
          for (int64_t dx = 0; dx < f; ++dx)
            for (int64_t c = 0; c < C; ++c, ++shuffled) {
              const int64_t plain = ((b * n + row * f + dy) * n + column * f + dx) * C + c;
              if (inverse)
                y[plain] = x[shuffled];
              else
                y[shuffled] = x[plain];
            }
  return y;
}

// ---- optimizer

struct AdamWSettings {
  double lr, beta1, beta2, eps, weight_decay;
};

// One step, in place.
template <class Real>
void adamw(Values& p, Values& m, Values& v, const Values& g, double scale, int64_t t, const AdamWSettings& a) {
  const Real step = Real(a.lr / (1 - std::pow(a.beta1, t))), correction = Real(std::sqrt(1 - std::pow(a.beta2, t)));
  for_each_of(p.size(), kFewEntries, [&](int64_t i) {
    const Real slope = Real(g[i]) * Real(scale);
    const Real decayed = Real(p[i]) * Real(1 - a.lr * a.weight_decay);
    m[i] = Real(m[i]) + (slope - Real(m[i])) * Real(1 - a.beta1);
    v[i] = Real(a.beta2) * Real(v[i]) + Real(1 - a.beta2) * slope * slope;
    p[i] = decayed - step * Real(m[i]) / (std::sqrt(Real(v[i])) / correction + Real(a.eps));
  });
}

}  // namespace nanovlm::testing::reference
