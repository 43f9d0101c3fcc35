// Every differentiable operation. Inputs are contiguous. Activations are rows: [R, C] with R = batch x tokens, packed
// or padded alike.
//
// Mixed precision: parameters are fp32 and so are the residual stream, its gradient, and the loss. `dtype` is what
// products and the activations between them are computed in: f32, or bf16 with fp32 sums. docs/numerics.md says where
// each rounds.
#pragma once
#include "engine/autograd.h"
#include "engine/tensor.h"

namespace nanovlm {

// y = x weight^T + bias:  x [R, K] f32 or bf16, weight [N, K] f32, bias [N] f32 or undefined -> [R, N] dtype.
// A weight that is not trained may be held in dtype already. With `out`, the result has that dtype, not rounded to
// dtype.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, DType dtype);
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, DType dtype, DType out);
// linear() of the same rows with several weights, without bias, as one product: their columns side by side in one
// tensor.
Tensor linear_joined(const Tensor& x, const std::vector<Tensor>& weights, DType dtype);
// The same in tensors of their own; one launch where no gradients are recorded, and no weight is copied.
std::vector<Tensor> linear_each(const Tensor& x, const std::vector<Tensor>& weights, DType dtype);

// The residual stream as a sum not yet taken: norms add `delta` and normalise in one pass.
struct Residual {
  Tensor x;      // [R, C] f32
  Tensor delta;  // [R, C] dtype, or undefined
};
struct Normed {
  Tensor sum;  // [R, C] f32, x + delta
  Tensor y;    // [R, C] dtype, normalised
};
Normed rms_norm(const Residual& input, const Tensor& weight, float eps, DType dtype);  // weight [C]
Normed layer_norm(const Residual& input, const Tensor& weight, const Tensor& bias, float eps, DType dtype);  // [C], [C]
Tensor add(const Residual& input);  // [R, C] f32, x + delta

// Which rows belong together, where they stand, and which may be attended to.
struct Segments {
  Tensor bounds;        // [S + 1] i32: segment s owns rows bounds[s] .. bounds[s + 1] - 1
  int64_t longest = 0;  // rows of the longest segment
  Tensor key_mask;      // [R] u8, 1 = may be attended to; undefined: all
  Tensor positions;     // [R] i32, for RoPE; undefined: the place in the segment
};
struct RopeTable {
  Tensor cos, sin;  // [positions, D / 2] f32; undefined: no rotation
};
struct Heads {
  int H, G, D;  // query heads, key/value heads, head size
};
// softmax(q k^T / sqrt(D)) v with RoPE on q and k:  q [R, H * D], k and v [R, G * D], all of one dtype -> [R, H * D]
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, Heads heads, const Segments& segments,
                 const RopeTable& rope, bool causal);
// The same with q | k | v side by side in one tensor [R, (H + 2 G) * D].
Tensor attention(const Tensor& qkv, Heads heads, const Segments& segments, const RopeTable& rope, bool causal);

// For a KV cache [B, capacity, G * D]; none of these has a gradient.
Tensor rope(const Tensor& x, int H, int D, const RopeTable& table, const Tensor& positions);  // [R, H * D]
void write_rows(const Tensor& x, const Tensor& rows, const Tensor& cache);  // cache row rows[r] = x[r]
// One token a sequence: q [B, H * D], rotated, over the first lengths[b] rows of its cache -> [B, H * D]
Tensor attention_decode(const Tensor& q, const Tensor& k, const Tensor& v, Heads heads, const Tensor& lengths);

Tensor gelu(const Tensor& x);  // tanh approximation
// linear(gelu(linear(x, weight1, bias1)), weight2, bias2): weight1 [N, K], weight2 [M, N]. With --kernel mlp=epilogue
// GELU and its gradient are parts of the products beside them (kernels/matmul/matmul_gelu.h).
Tensor mlp(const Tensor& x, const Tensor& weight1, const Tensor& bias1, const Tensor& weight2, const Tensor& bias2,
           DType dtype);
Tensor swiglu(const Tensor& gate, const Tensor& up);  // silu(gate) * up
Tensor swiglu(const Tensor& gate_up);                 // gate | up side by side, [R, 2 C] -> [R, C]

// Row numbers come from the host, where they are checked, or lie on the device already: a training step has them
// uploaded before its first launch.
Tensor row_numbers(const std::vector<int32_t>& rows, const Device& device);  // [rows] i32
struct TokenIds {
  Tensor ids;  // [R] i32
  // For the gradient: each distinct id with its places in `order`, places starts[u] .. starts[u + 1] - 1 belonging to
  // target[u]. All have R or R + 1 entries, whatever the ids are: targets left over are -1. Undefined: no gradient.
  Tensor target, starts, order;
};
TokenIds token_ids(const std::vector<int32_t>& ids, bool gradient, const Device& device);

Tensor embedding(const Tensor& weight, const std::vector<int32_t>& ids);  // [V, C] f32 -> [R, C] f32
Tensor embedding(const Tensor& weight, const TokenIds& ids);
// [any, C] -> [rows, C]; rows distinct where a gradient is asked for
Tensor gather_rows(const Tensor& x, const std::vector<int32_t>& rows);
Tensor gather_rows(const Tensor& x, const Tensor& rows);
// Rows of a and b (f32) put at the rows a_rows and b_rows of the result, which together are 0 .. R - 1 -> [R, C] f32
Tensor splice(const Tensor& a, const std::vector<int32_t>& a_rows, const Tensor& b, const std::vector<int32_t>& b_rows);
Tensor splice(const Tensor& a, const Tensor& a_rows, const Tensor& b, const Tensor& b_rows);

// images [B, 3, S, S], weight [C, 3, p, p], bias [C], position [1, P, C], all f32 -> [B * P, C] f32
Tensor patch_embedding(const Tensor& images, const Tensor& weight, const Tensor& bias, const Tensor& position,
                       DType dtype);
// x [B * n * n, C] -> [B * (n/f)^2, C * f * f]
Tensor pixel_shuffle(const Tensor& x, int64_t B, int f);
// The linear map behind it: pixel_shuffle(x, B, f) weight^T, weight [N, C * f * f] f32 -> [B * (n/f)^2, N] dtype.
// With --kernel projector=fused one product, for bf16 on GPUs.
Tensor projector(const Tensor& x, int64_t B, int f, const Tensor& weight, DType dtype);

// Mean cross entropy of the rows of h against targets, through the head: logits = h weight^T, in chunks, never stored
// whole. h [R, C], weight [V, C] f32, targets [R], R > 0 -> one f32. Gradients are computed in the same pass.
Tensor linear_cross_entropy(const Tensor& h, const Tensor& weight, const std::vector<int32_t>& targets, DType dtype);
Tensor linear_cross_entropy(const Tensor& h, const Tensor& weight, const Tensor& targets, DType dtype);

Tensor cast(const Tensor& x, DType dtype);
Tensor unit_range(const Tensor& pixels);  // u8 / 255 -> f32; f32 as it is. Without a gradient for u8
Tensor scale(const Tensor& x, float factor);
Tensor view(const Tensor& x, Shape shape);  // the same numbers, contiguous

}  // namespace nanovlm
