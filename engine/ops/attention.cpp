#include "kernels/attention/attention.h"

#include <cmath>

#include "kernels/rope/rope.h"

#include "engine/ops.h"

namespace nanovlm {
namespace {

// Pointers into tensors that the caller keeps alive.
kernels::AttentionShape attention_shape(const Tensor& q, Heads heads, const Segments& segments, const RopeTable& rope,
                                        bool causal) {
  const int64_t R = q.size(0);
  check(heads.H > 0 && heads.G > 0 && heads.H % heads.G == 0, "attention: ", heads.H, " query heads for ", heads.G,
        " key/value heads");
  check(segments.bounds.rank() == 1 && segments.bounds.size(0) >= 1, "attention: bounds is ", segments.bounds.shape());
  check(!segments.key_mask.defined() || segments.key_mask.shape() == Shape{R}, "attention: key_mask is ",
        segments.key_mask.shape(), " for ", R, " rows");
  check(!segments.positions.defined() || segments.positions.shape() == Shape{R}, "attention: positions is ",
        segments.positions.shape(), " for ", R, " rows");
  check(!rope.cos.defined() || 2 * rope.cos.size(-1) == heads.D, "attention: cos is ", rope.cos.shape(),
        " for head size ", heads.D);
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
  check(k.rank() == 3 && k.size(2) == heads.G * heads.D && v.shape() == k.shape(), "attention_decode: k is ", k.shape(),
        ", v is ", v.shape(), " for ", heads.G, " heads of ", heads.D);
  check(q.shape() == Shape{k.size(0), heads.H * heads.D}, "attention_decode: q is ", q.shape(), ", but k is ",
        k.shape());
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
