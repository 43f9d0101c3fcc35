#include "kernels/attention/attention.h"

#include <cmath>

#include "kernels/rope/rope.h"

#include "engine/ops.h"
#include "engine/ops/checks.h"

namespace nanovlm {
namespace {

void check_rope(const char* op, const RopeTable& rope, int D) {
  const auto& [cos, sin] = rope;
  check(cos.rank() == 2 && 2 * cos.size(1) == D && sin.shape() == cos.shape(), op, ": cos is ", cos.shape(),
        " and sin ", sin.shape(), ", but must be [positions, ", D, " / 2]");
  check_contiguous(op, {{"cos", cos}, {"sin", sin}});
}

void check_positions(const char* op, const Tensor& positions, int64_t R) {
  check(positions.shape() == Shape{R} && positions.dtype() == DType::i32, op, ": positions is ", positions.shape(), " ",
        positions.dtype(), ", but must be [", R, "] i32");
  check_contiguous(op, {{"positions", positions}});
}

void check_heads(const char* op, Heads heads) {
  check(heads.H > 0 && heads.G > 0 && heads.H % heads.G == 0, op, ": ", heads.H, " query heads for ", heads.G,
        " key/value heads");
}

// Pointers into tensors that the caller keeps alive.
kernels::AttentionShape attention_shape(const Tensor& q, Heads heads, const Segments& segments, const RopeTable& rope,
                                        bool causal) {
  const int64_t R = q.size(0);
  check_heads("attention", heads);
  check(segments.bounds.rank() == 1 && segments.bounds.size(0) >= 1, "attention: bounds is ", segments.bounds.shape());
  check(!segments.key_mask.defined() || segments.key_mask.shape() == Shape{R}, "attention: key_mask is ",
        segments.key_mask.shape(), " for ", R, " rows");
  check_contiguous("attention", {{"bounds", segments.bounds}, {"key_mask", segments.key_mask}});
  if (segments.positions.defined()) check_positions("attention", segments.positions, R);
  if (rope.cos.defined() || rope.sin.defined()) {
    check_rope("attention", rope, heads.D);
    check(segments.positions.defined() || rope.cos.size(0) >= segments.longest, "attention: cos is ", rope.cos.shape(),
          ", but the longest segment has ", segments.longest, " rows");
  }
  return {R,
          segments.bounds.size(0) - 1,
          segments.bounds.i32(),
          segments.longest,
          segments.key_mask.defined() ? segments.key_mask.u8() : nullptr,
          heads.H,
          heads.G,
          heads.D,
          causal,
          static_cast<float>(1 / std::sqrt(static_cast<double>(heads.D))),
          rope.cos.defined() ? rope.cos.f32() : nullptr,
          rope.sin.defined() ? rope.sin.f32() : nullptr,
          segments.positions.defined() ? segments.positions.i32() : nullptr,
          q.dtype()};
}

int64_t row_stride(const Tensor& x) { return x.strides()[0]; }

// Attention over three views; they may lie in one tensor.
struct Result {
  Tensor o, lse;
};
Result forward(const Tensor& q, const Tensor& k, const Tensor& v, Heads heads, const Segments& segments,
               const RopeTable& rope, bool causal) {
  const int64_t R = q.size(0);
  Tensor o = empty({R, heads.H * heads.D}, q.dtype(), q.device());
  Tensor lse = empty({R, heads.H}, DType::f32, q.device());
  on(q.device(), "attention", [&](auto backend, Stream stream) {
    kernels::attention(
        backend,
        {attention_shape(q, heads, segments, rope, causal), q.data(), k.data(), v.data(), row_stride(q), row_stride(k),
         row_stride(v), o.data(), lse.f32(), q.device().context().kernels.of("attention")},
        stream);
  });
  return {o, lse};
}

struct Views {
  Tensor q, k, v;
};
void backward(const Views& in, const Result& result, const Tensor& dy, const Views& out, Heads heads,
              const Segments& segments, const RopeTable& rope, bool causal) {
  on(dy.device(), "attention_backward", [&](auto backend, Stream stream) {
    kernels::attention_backward(
        backend,
        {attention_shape(in.q, heads, segments, rope, causal), in.q.data(), in.k.data(), in.v.data(), row_stride(in.q),
         row_stride(in.k), row_stride(in.v), result.o.data(), dy.data(), result.lse.f32(), out.q.data(), out.k.data(),
         out.v.data(), dy.device().context().kernels.of("attention_backward")},
        stream);
  });
}

Views split(const Tensor& qkv, Heads heads) {
  const int64_t q = heads.H * heads.D, kv = heads.G * heads.D;
  return {qkv.slice(1, 0, q), qkv.slice(1, q, q + kv), qkv.slice(1, q + kv, q + 2 * kv)};
}

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, Heads heads, const Segments& segments,
                 const RopeTable& rope, bool causal) {
  const int64_t R = q.size(0);
  check(q.shape() == Shape{R, heads.H * heads.D}, "attention: q is ", q.shape(), " for ", heads.H, " heads of ",
        heads.D);
  check(k.shape() == Shape{R, heads.G * heads.D} && v.shape() == k.shape(), "attention: k is ", k.shape(), ", v is ",
        v.shape(), " for ", heads.G, " heads of ", heads.D, " and ", R, " rows");
  check(k.dtype() == q.dtype() && v.dtype() == q.dtype(), "attention: k is ", k.dtype(), " and v ", v.dtype(),
        ", but q is ", q.dtype());
  check_contiguous("attention", {{"q", q}, {"k", k}, {"v", v}});  // their gradients get the same strides
  check_float("attention", {{"q", q}});
  const Views in = {q.detach(), k.detach(), v.detach()};
  const Result result = forward(in.q, in.k, in.v, heads, segments, rope, causal);
  return record("attention", result.o, {q, k, v}, [=](const Tensor& dy, const Needs&) -> Gradients {
    const Views out = {empty_like(in.q), empty_like(in.k), empty_like(in.v)};
    backward(in, result, dy, out, heads, segments, rope, causal);
    return {out.q, out.k, out.v};
  });
}

Tensor attention(const Tensor& qkv, Heads heads, const Segments& segments, const RopeTable& rope, bool causal) {
  check(qkv.rank() == 2 && qkv.size(1) == (heads.H + 2 * heads.G) * heads.D, "attention: qkv is ", qkv.shape(), " for ",
        heads.H, " + 2 x ", heads.G, " heads of ", heads.D);
  check_contiguous("attention", {{"q | k | v", qkv}});
  check_float("attention", {{"q | k | v", qkv}});
  const Tensor kept = qkv.detach();
  const Views in = split(kept, heads);
  const Result result = forward(in.q, in.k, in.v, heads, segments, rope, causal);
  return record("attention", result.o, {qkv}, [=](const Tensor& dy, const Needs&) -> Gradients {
    Tensor dqkv = empty_like(kept);
    backward(in, result, dy, split(dqkv, heads), heads, segments, rope, causal);
    return {dqkv};
  });
}

Tensor rope(const Tensor& x, int H, int D, const RopeTable& table, const Tensor& positions) {
  check(x.rank() == 2 && x.size(1) == H * D && D % 2 == 0, "rope: x is ", x.shape(), " for ", H, " heads of ", D);
  check_contiguous("rope", {{"x", x}});
  check_float("rope", {{"x", x}});
  check_rope("rope", table, D);
  check_positions("rope", positions, x.size(0));
  Tensor y = empty_like(x);
  on(x.device(), "rope", [&](auto backend, Stream stream) {
    kernels::rope(
        backend,
        {x.data(), y.data(), table.cos.f32(), table.sin.f32(), positions.i32(), x.size(0), H, D, false, x.dtype()},
        stream);
  });
  return without_gradient("rope", y, {x});
}

Tensor attention_decode(const Tensor& q, const Tensor& k, const Tensor& v, Heads heads, const Tensor& lengths) {
  check_heads("attention_decode", heads);
  check(k.rank() == 3 && k.size(2) == heads.G * heads.D && v.shape() == k.shape(), "attention_decode: k is ", k.shape(),
        ", v is ", v.shape(), " for ", heads.G, " heads of ", heads.D);
  check(q.shape() == Shape{k.size(0), heads.H * heads.D}, "attention_decode: q is ", q.shape(), ", but k is ",
        k.shape());
  check(k.dtype() == q.dtype() && v.dtype() == q.dtype(), "attention_decode: k is ", k.dtype(), " and v ", v.dtype(),
        ", but q is ", q.dtype());
  check(lengths.shape() == Shape{q.size(0)} && lengths.dtype() == DType::i32, "attention_decode: lengths is ",
        lengths.shape(), " ", lengths.dtype(), ", but must be [", q.size(0), "] i32");
  check_contiguous("attention_decode", {{"q", q}, {"k", k}, {"v", v}, {"lengths", lengths}});
  check_float("attention_decode", {{"q", q}});
  Tensor o = empty_like(q);
  on(q.device(), "attention_decode", [&](auto backend, Stream stream) {
    kernels::attention_decode(
        backend,
        {q.data(), k.data(), v.data(), lengths.i32(), o.data(), k.size(0), k.size(1), heads.H, heads.G, heads.D,
         static_cast<float>(1 / std::sqrt(static_cast<double>(heads.D))), q.dtype()},
        stream);
  });
  return without_gradient("attention_decode", o, {q, k, v});
}

}  // namespace nanovlm
