// What one thread of a naive kernel does: entry i of a result. Internal linkage, since every backend compiles it.
#pragma once
#include <cmath>
#include <stdexcept>

#include "kernels/naive/naive.h"

namespace nanovlm::kernels {
namespace {

// ---- AdamW: parameter i of a tensor

struct NaiveAdamW {
  AdamWTensor a;
  const float *scale, *only_if_finite;
  NANOVLM_HOST_DEVICE void operator()(int64_t i) const {
    if (only_if_finite && !(fabsf(*only_if_finite) < INFINITY)) return;
    const AdamWCoefficients& c = *a.coefficients;
    const float g = a.g[i] * (scale ? *scale : 1.0f);
    a.m[i] += (g - a.m[i]) * c.toward_gradient;
    a.v[i] = c.beta2 * a.v[i] + c.one_minus_beta2 * g * g;
    a.p[i] = a.p[i] * c.decay - c.step * a.m[i] / (sqrtf(a.v[i]) / c.root_correction + c.eps);
    if (a.copy) a.copy[i] = bf16(a.p[i]);
  }
};

// ---- patch embedding

template <class T>
NANOVLM_HOST_DEVICE float rounded(float x) {
  return static_cast<float>(T(x));
}

// Where the pixels of patches lie.
struct NaiveGrid {
  int64_t S, p;
  NANOVLM_HOST_DEVICE int64_t width() const { return S / p; }
  NANOVLM_HOST_DEVICE int64_t patches() const { return width() * width(); }
  NANOVLM_HOST_DEVICE int64_t pixels() const { return 3 * p * p; }
  // Where patch i of picture b begins, and from there pixel k.
  NANOVLM_HOST_DEVICE int64_t first(int64_t b, int64_t i) const {
    return (b * 3 * S + i / width() * p) * S + i % width() * p;
  }
  NANOVLM_HOST_DEVICE int64_t pixel(int64_t k) const { return (k / (p * p) * S + k / p % p) * S + k % p; }
};

// y [B, P, C]
template <class T>
struct NaivePatchEmbedding {
  PatchEmbedding a;
  NANOVLM_HOST_DEVICE void operator()(int64_t i) const {
    const NaiveGrid grid{a.S, a.p};
    const int64_t c = i % a.C, patch = i / a.C % grid.patches(), b = i / a.C / grid.patches(), K = grid.pixels();
    const float* const pixels = a.images + grid.first(b, patch);
    const T* weight = static_cast<const T*>(a.weight) + c * K;
    float sum = 0;
    for (int64_t row = 0; row < 3 * grid.p; ++row)  // of the three channels, one after the other
      for (int64_t x = 0; x < grid.p; ++x, ++weight)
        sum += rounded<T>(pixels[grid.pixel(row * grid.p) + x]) * static_cast<float>(*weight);
    a.y[i] = sum + a.bias[c] + (a.position ? a.position[patch * a.C + c] : 0);
  }
};

// dweight [C, K]
template <class T>
struct NaivePatchWeight {
  PatchEmbeddingBackward a;
  NANOVLM_HOST_DEVICE void operator()(int64_t i) const {
    const NaiveGrid grid{a.S, a.p};
    const int64_t k = i % grid.pixels(), c = i / grid.pixels(), P = grid.patches();
    const float* const images = a.images + grid.pixel(k);
    float sum = 0;
    for (int64_t b = 0; b < a.B; ++b)
      for (int64_t patch = 0; patch < P; ++patch)
        sum += rounded<T>(a.dy[(b * P + patch) * a.C + c]) * rounded<T>(images[grid.first(b, patch)]);
    a.dweight[i] += sum;
  }
};

// sums [n] += the sum over rows of x [rows, n]: dbias and dposition
struct NaiveColumnSum {
  const float* x;
  float* sums;
  int64_t rows, n;
  NANOVLM_HOST_DEVICE void operator()(int64_t i) const {
    float sum = 0;
    for (int64_t row = 0; row < rows; ++row) sum += x[row * n + i];
    sums[i] += sum;
  }
};

// ---- attention

template <class T>
NANOVLM_HOST_DEVICE float dot(const T* x, const T* y, int D) {
  float sum = 0;
  for (int d = 0; d < D; ++d) sum += static_cast<float>(x[d]) * static_cast<float>(y[d]);
  return sum;
}

// Which of a scores' matrix [R, H, T] entry i is.
struct NaiveScore {
  int64_t head, row, h, g, key;  // head of all R H
  bool seen;

  NANOVLM_HOST_DEVICE NaiveScore(const AttentionShape& s, int64_t i)
      : head(i / s.longest),
        row(head / s.H),
        h(head % s.H),
        g(h / (s.H / s.G)),
        key(row / s.longest * s.longest + i % s.longest),
        seen(!s.causal || key <= row) {}
};

// scale q . k; -inf where the query does not see the key
template <class T, class A>
NANOVLM_HOST_DEVICE float naive_score(const A& a, const NaiveScore& at) {
  const AttentionShape& s = a.shape;
  if (!at.seen) return -INFINITY;
  return s.scale * dot(static_cast<const T*>(a.q) + at.row * a.q_stride + at.h * s.D,
                       static_cast<const T*>(a.k) + at.key * a.k_stride + at.g * s.D, s.D);
}

// Entry i of scores [R, H, T] rows, where rows [R, G, D] are the keys or the values.
template <class T>
NANOVLM_HOST_DEVICE float sum_over_keys(const AttentionShape& s, const float* scores, const void* rows, int64_t stride,
                                        int64_t i) {
  const NaiveScore first(s, i / s.D * s.longest);
  const T* const column = static_cast<const T*>(rows) + first.key * stride + first.g * s.D + i % s.D;
  float sum = 0;
  for (int64_t j = 0; j < s.longest; ++j)
    sum += scores[first.head * s.longest + j] * static_cast<float>(column[j * stride]);
  return sum;
}

// p [R, H, T] = scores
template <class T>
struct NaiveAttentionScores {
  NaiveAttention n;
  NANOVLM_HOST_DEVICE void operator()(int64_t i) const { n.p[i] = naive_score<T>(n.a, NaiveScore(n.a.shape, i)); }
};

// A row of p [R H, T] becomes probabilities, and its log-sum-exp an entry of lse.
template <class T>
struct NaiveSoftmax {
  NaiveAttention n;
  NANOVLM_HOST_DEVICE void operator()(int64_t i) const {
    const int64_t keys = n.a.shape.longest;
    float* const p = n.p + i * keys;
    float max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < keys; ++j) max = fmaxf(max, p[j]);
    for (int64_t j = 0; j < keys; ++j) sum += p[j] = expf(p[j] - max);
    for (int64_t j = 0; j < keys; ++j) p[j] = rounded<T>(p[j] / sum);
    if (n.a.lse) n.a.lse[i] = max + logf(sum);
  }
};

// o [R, H, D] = p v
template <class T>
struct NaiveAttentionOutput {
  NaiveAttention n;
  NANOVLM_HOST_DEVICE void operator()(int64_t i) const {
    static_cast<T*>(n.a.o)[i] = T(sum_over_keys<T>(n.a.shape, n.p, n.a.v, n.a.v_stride, i));
  }
};

// ---- attention's gradient

// delta [R, H] = o . do
template <class T>
struct NaiveDelta {
  NaiveAttentionBackward n;
  NANOVLM_HOST_DEVICE void operator()(int64_t i) const {
    const int D = n.a.shape.D;
    n.delta[i] = dot(static_cast<const T*>(n.a.o) + i * D, static_cast<const T*>(n.a.d_o) + i * D, D);
  }
};

// p and ds [R, H, T]: exp(scale q . k - lse), and scale p (do . v - delta)
template <class T>
struct NaiveScores {
  NaiveAttentionBackward n;
  NANOVLM_HOST_DEVICE void operator()(int64_t i) const {
    const AttentionBackward& a = n.a;
    const AttentionShape& s = a.shape;
    const NaiveScore at(s, i);
    n.p[i] = n.ds[i] = 0;
    if (!at.seen) return;
    const float p = expf(naive_score<T>(a, at) - a.lse[at.head]);
    const float dp = dot(static_cast<const T*>(a.d_o) + at.head * s.D,
                         static_cast<const T*>(a.v) + at.key * a.v_stride + at.g * s.D, s.D);
    n.p[i] = rounded<T>(p), n.ds[i] = rounded<T>(s.scale * p * (dp - n.delta[at.head]));
  }
};

// dq [R, H, D] = ds k
template <class T>
struct NaiveDq {
  NaiveAttentionBackward n;
  NANOVLM_HOST_DEVICE void operator()(int64_t i) const {
    const AttentionBackward& a = n.a;
    const int64_t width = a.shape.H * a.shape.D;
    static_cast<T*>(a.dq)[i / width * a.q_stride + i % width] = T(sum_over_keys<T>(a.shape, n.ds, a.k, a.k_stride, i));
  }
};

// dk and dv [R, G, D] = ds^T q and p^T do, over the rows of the segment and the heads of the group
template <class T>
struct NaiveDkv {
  NaiveAttentionBackward n;
  NANOVLM_HOST_DEVICE void operator()(int64_t i) const {
    const AttentionBackward& a = n.a;
    const AttentionShape& s = a.shape;
    const int64_t d = i % s.D, g = i / s.D % s.G, key = i / s.D / s.G, heads = s.H / s.G;
    const int64_t begin = key / s.longest * s.longest, j = key - begin;
    float dk = 0, dv = 0;
    for (int64_t row = begin; row < begin + s.longest; ++row)
      for (int64_t h = g * heads; h < (g + 1) * heads; ++h) {
        const int64_t head = row * s.H + h, score = head * s.longest + j;
        dk += n.ds[score] * static_cast<float>(static_cast<const T*>(a.q)[row * a.q_stride + h * s.D + d]);
        dv += n.p[score] * static_cast<float>(static_cast<const T*>(a.d_o)[head * s.D + d]);
      }
    static_cast<T*>(a.dk)[key * a.k_stride + g * s.D + d] = T(dk);
    static_cast<T*>(a.dv)[key * a.v_stride + g * s.D + d] = T(dv);
  }
};

// ---- operations: each calls entries(name, n, f), which is to call f(i) for all i < n, in any order

template <class Entries>
void naive_adamw_by(const AdamW& a, const Entries& entries) {
  for (int64_t i = 0; i < a.count; ++i)
    entries("naive_adamw", a.tensors[i].n, NaiveAdamW{a.tensors[i], a.scale, a.only_if_finite});
}

template <class Entries>
void naive_patch_embedding_by(const PatchEmbedding& a, const Entries& entries) {
  const int64_t n = a.B * NaiveGrid{a.S, a.p}.patches() * a.C;
  with_float(a.dtype, [&]<class T>(Type<T>) { entries("naive_patch_embedding", n, NaivePatchEmbedding<T>{a}); });
}

template <class Entries>
void naive_patch_embedding_backward_by(const PatchEmbeddingBackward& a, const Entries& entries) {
  if (a.dimages) throw std::invalid_argument("naive_patch_embedding_backward: dimages is asked for, but has no kernel");
  const NaiveGrid grid{a.S, a.p};
  const int64_t P = grid.patches();
  with_float(a.dtype, [&]<class T>(Type<T>) {
    if (a.dweight) entries("naive_patch_dweight", a.C * grid.pixels(), NaivePatchWeight<T>{a});
  });
  if (a.dbias) entries("naive_patch_dbias", a.C, NaiveColumnSum{a.dy, a.dbias, a.B * P, a.C});
  if (a.dposition) entries("naive_patch_dposition", P * a.C, NaiveColumnSum{a.dy, a.dposition, a.B, P * a.C});
}

inline bool naive_can(const AttentionShape& s) { return !s.cos && !s.key_mask && s.R == s.S * s.longest; }

template <class Entries>
void naive_attention_by(const NaiveAttention& n, const Entries& entries) {
  const AttentionShape& s = n.a.shape;
  if (!naive_can(s))
    throw std::invalid_argument("naive_attention: has neither RoPE, mask, nor segments of unequal length");
  with_float(s.dtype, [&]<class T>(Type<T>) {
    entries("naive_attention_scores", s.R * s.H * s.longest, NaiveAttentionScores<T>{n});
    entries("naive_attention_softmax", s.R * s.H, NaiveSoftmax<T>{n});
    entries("naive_attention_output", s.R * s.H * s.D, NaiveAttentionOutput<T>{n});
  });
}

template <class Entries>
void naive_attention_backward_by(const NaiveAttentionBackward& n, const Entries& entries) {
  const AttentionShape& s = n.a.shape;
  if (!naive_can(s))
    throw std::invalid_argument("naive_attention_backward: has neither RoPE, mask, nor segments of unequal length");
  with_float(s.dtype, [&]<class T>(Type<T>) {
    entries("naive_attention_delta", s.R * s.H, NaiveDelta<T>{n});
    entries("naive_attention_dscores", s.R * s.H * s.longest, NaiveScores<T>{n});
    entries("naive_attention_dq", s.R * s.H * s.D, NaiveDq<T>{n});
    entries("naive_attention_dkv", s.R * s.G * s.D, NaiveDkv<T>{n});
  });
}

}  // namespace
}  // namespace nanovlm::kernels
