// The naive kernels, which benches compare with: as exact as the operations that they are the plainest form of.
#include "kernels/naive/naive.h"

#include "kernels/adamw/coefficients.h"
#include "tests/support/attention_cases.h"
#include "tests/support/backends.h"
#include "tests/support/reference.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

TEST_CASE("naive AdamW is as exact as the plain formula") {
  const int64_t t = 3;
  const reference::AdamWSettings settings{1e-3, 0.9, 0.95, 1e-8, 0.1};
  Random random(1);
  const int64_t n = 261;  // more than a block
  const Buffer p = random.normal(n, DType::f32), m = random.normal(n, DType::f32, 0.1);
  const Buffer v = random.normal(n, DType::f32, 0.01, 0.1), g = random.normal(n, DType::f32);
  const auto expected = [&]<class Real>(Real) {
    std::array<Values, 3> state{p.values(), m.values(), v.values()};
    reference::adamw<Real>(state[0], state[1], state[2], g.values(), 0.25, t, settings);
    return state;
  };
  const auto exact = expected(double()), rounded = expected(float());
  for_each_backend([&](auto backend, Stream stream) {
    Buffer new_p = p, new_m = m, new_v = v, slope = g, copy(n, DType::bf16), scale(Values{0.25}, DType::f32),
           none(0, DType::f32);
    const Number<kernels::AdamWCoefficients> coefficients(kernels::adamw_coefficients(
        {t, settings.lr, settings.beta1, settings.beta2, settings.eps, settings.weight_decay}));
    const kernels::AdamWTensor tensor{new_p, new_m, new_v, slope, copy, coefficients.place(), n};
    kernels::naive_adamw(backend, {&tensor, 1, scale, none}, stream);
    check_close("p", new_p.values(), exact[0], rounded[0]);
    check_close("m", new_m.values(), exact[1], rounded[1]);
    check_close("v", new_v.values(), exact[2], rounded[2]);
    CHECK(copy.same_bits(Buffer(new_p.values(), DType::bf16)));
  });
}

TEST_CASE("naive patch embedding and its gradients are as exact as the plain formula") {
  const int64_t B = 2, C = 5, S = 10, p = 3, P = 9, K = 27;  // pixels that fill no patch
  for (DType dtype : kFloatDTypes) {
    INFO(name_of(dtype));
    Random random(2);
    Buffer images = random.normal(B * 3 * S * S, DType::f32), weight = random.normal(C * K, dtype, 0.2);
    Buffer bias = random.normal(C, DType::f32), position = random.normal(P * C, DType::f32);
    Buffer dy = random.normal(B * P * C, DType::f32), none(0, dtype);
    const auto forward = [&]<class Real>(Real) {
      return reference::patch_embedding<Real>(images.values(), weight.values(), bias.values(), position.values(), B, S,
                                              p, dtype);
    };
    const auto backward = [&]<class Real>(Real) {
      return reference::patch_embedding_backward<Real>(images.values(), weight.values(), dy.values(), B, C, S, p,
                                                       dtype);
    };
    const Values exact_y = forward(double()), y_rounded = forward(float());
    const auto exact = backward(double()), rounded = backward(float());
    for_each_backend([&](auto backend, Stream stream) {
      Buffer y(B * P * C, DType::f32), dweight(Values(C * K), DType::f32), dbias(Values(C), DType::f32);
      Buffer dposition(Values(P * C), DType::f32), no_floats(0, DType::f32);
      kernels::naive_patch_embedding(
          backend, kernels::PatchEmbedding{images, weight, bias, position, y, none, B, C, S, p, dtype}, stream);
      kernels::naive_patch_embedding_backward(
          backend,
          kernels::PatchEmbeddingBackward{images, weight, dy, dweight, dbias, dposition, no_floats, none, none, B, C, S,
                                          p, dtype},
          stream);
      check_close("y", y.values(), exact_y, y_rounded);
      check_close("dweight", dweight.values(), exact.dweight, rounded.dweight);
      check_close("dbias", dbias.values(), exact.dbias, rounded.dbias);
      check_close("dposition", dposition.values(), exact.dposition, rounded.dposition);
    });
  }
}

TEST_CASE("naive attention and its gradients are as exact as the plain formula") {
  const Case cases[] = {{{7, 7}, 4, 2, 8, true, false}, {{9}, 3, 1, 5, false, false}};
  const auto check = [](Operands& x) {
    const AttentionSetting& s = x.setting;
    const auto exact = reference::attention<double>(s, x.q, x.k, x.v, x.dtype);
    const auto plain = reference::attention<float>(s, x.q, x.k, x.v, x.dtype);
    const Buffer o(exact.o, x.dtype), lse(exact.lse, DType::f32);
    const auto slope =
        reference::attention_backward<double>(s, x.q, x.k, x.v, o.values(), lse.values(), x.d_o, x.dtype);
    const auto plain_slope =
        reference::attention_backward<float>(s, x.q, x.k, x.v, o.values(), lse.values(), x.d_o, x.dtype);
    for_each_backend([&](auto backend, Stream stream) {
      Buffer p(s.R() * s.H * x.longest(), DType::f32), ds = p, delta(s.R() * s.H, DType::f32);
      const Forward out = forward_by(
          [&](const kernels::Attention& a) {
            kernels::naive_attention(backend, {a, p}, stream);
          },
          x);
      check_close("o", out.o.values(), exact.o, plain.o);
      check_close("lse", out.lse.values(), exact.lse, plain.lse);
      const Backward got = backward_by(
          [&](const kernels::AttentionBackward& a) {
            kernels::naive_attention_backward(backend, {a, delta, p, ds}, stream);
          },
          x, o, lse);
      check_close("dq", gathered(got.dq, s.H * s.D, x.q_stride), slope.dq, plain_slope.dq, slope.dq_terms);
      check_close("dk", gathered(got.dk, s.G * s.D, x.k_stride), slope.dk, plain_slope.dk, slope.dk_terms);
      check_close("dv", gathered(got.dv, s.G * s.D, x.v_stride), slope.dv, plain_slope.dv);
    });
  };
  for_each_case(check, kMostRows, cases);
}

}  // namespace
}  // namespace nanovlm::testing
