// Attention over packed rows, with RoPE applied while q and k are read. The score matrix is never stored.
//
//   o[i, h] = sum over j of softmax_j(scale * q[i, h] . k[j, h / (H / G)]) v[j, h / (H / G)]
//
// A query sees the keys of its own segment, those up to itself if `causal`, and of these the ones whose key_mask is 1.
// A row left with no key at all (nanoVLM adds finfo.min to every score, which makes them equal) attends evenly to the
// keys it would have seen without the mask. A batch [B, T] is B segments of T rows.
//
// RoPE (half-split): with c = cos[position], s = sin[position] and D' = D / 2,
//   q'[d] = q[d] c[d] - q[d + D'] s[d],   q'[d + D'] = q[d + D'] c[d] + q[d] s[d];  k alike.
//
// q, k, v, o and their gradients have `dtype`; scores, softmax, RoPE and accumulation are fp32. Under bf16 the rotated
// q and k are rounded to bf16 where they enter a product, as PyTorch's autocast does. Kernels on tensor cores round the
// probabilities and the scores' gradients there too; all others, the CPU's among them, leave those fp32.
#pragma once
#include "kernels/types.h"

namespace nanovlm::kernels {

// What a query may see, and where rows stand. Shared by both directions.
struct AttentionShape {
  int64_t R;                // rows in all
  int64_t S;                // segments
  const int32_t* bounds;    // [S + 1] segment s owns rows bounds[s] .. bounds[s + 1] - 1
  int64_t longest;          // rows of the longest segment
  const uint8_t* key_mask;  // [R], or null: every key may be seen
  int H, G, D;              // query heads, key/value heads (G divides H), head size (even where RoPE is used)
  bool causal;
  float scale;
  const float *cos, *sin;    // [positions, D / 2] or null: no RoPE
  const int32_t* positions;  // [R] row of cos and sin; null: the row's place in its segment
  DType dtype;
};

// Row strides are in elements; head h of a row starts at h * D.
struct Attention {
  AttentionShape shape;
  const void *q, *k, *v;  // [R, H, D], [R, G, D], [R, G, D]
  int64_t q_stride, k_stride, v_stride;
  void* o;     // [R, H, D], rows H * D apart
  float* lse;  // [R, H] log-sum-exp of the scaled scores, or null; log(number of keys) for a row left with no key
  const char* kernel = nullptr;  // by its name in kernels/variants.cpp, for the CUDA source; null: the first that can
};

struct AttentionBackward {
  AttentionShape shape;
  const void *q, *k, *v;
  int64_t q_stride, k_stride, v_stride;
  const void *o, *d_o;           // [R, H, D], rows H * D apart
  const float* lse;              // [R, H]
  void *dq, *dk, *dv;            // as q, k, v, with the same strides; written, not added to
  const char* kernel = nullptr;  // as in Attention
};

// One new token a sequence over a cache of keys (already rotated) and values; q is already rotated too.
struct AttentionDecode {
  const void* q;           // [B, H, D]
  const void *k, *v;       // [B, capacity, G, D]
  const int32_t* lengths;  // [B] keys in use, the new one included
  void* o;                 // [B, H, D]
  int64_t B, capacity;
  int H, G, D;
  float scale;
  DType dtype;
};

template <class Backend>
void attention(Backend, const Attention&, Stream);
template <class Backend>
void attention_backward(Backend, const AttentionBackward&, Stream);
template <class Backend>
void attention_decode(Backend, const AttentionDecode&, Stream);

}  // namespace nanovlm::kernels
