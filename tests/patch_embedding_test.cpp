#include "kernels/patch_embedding/patch_embedding.h"

#include "tests/support/backends.h"
#include "tests/support/fixture.h"
#include "tests/support/reference.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

struct Case {
  int64_t B, C;
  int S, p;
  int64_t P() const { return int64_t{S / p} * (S / p); }
  int64_t K() const { return int64_t{3} * p * p; }
};
// One pixel; odd sizes; pixels that fill no patch; the model's patch; what a GPU has tiles for, in one and in several.
constexpr Case kCases[] = {{1, 1, 1, 1},   {2, 33, 10, 5},  {3, 31, 13, 4},
                           {1, 7, 34, 16}, {2, 20, 32, 16}, {1, 130, 36, 8}};

struct Operands {
  Case shape;
  DType dtype;
  Buffer images, weight, bias, position, dy;
};

Operands random_operands(Case s, DType dtype, bool with_position) {
  Random random(s.C);
  return {s,
          dtype,
          random.normal(s.B * 3 * s.S * s.S, DType::f32),
          random.normal(s.C * s.K(), dtype, 0.2),
          random.normal(s.C, DType::f32),
          random.normal(with_position ? s.P() * s.C : 0, DType::f32),
          random.normal(s.B * s.P() * s.C, DType::f32)};
}

struct Outputs {
  Buffer y, dweight, dbias, dposition, dimages;
};

// Which gradients are asked for.
struct Wanted {
  bool dweight = true, dbias = true, dposition = true, dimages = true;
};

// The gradients that are added to start at 0.
template <class Backend>
Outputs run(Backend backend, Stream stream, const Operands& operands, Wanted wanted = {}) {
  Operands o = operands;
  const auto [B, C, S, p] = o.shape;
  const int64_t rows = B * o.shape.P(), K = o.shape.K();
  const auto zeros = [](int64_t n) { return Buffer(Values(n), DType::f32); };
  Outputs out{Buffer(rows * C, DType::f32), zeros(wanted.dweight ? C * K : 0), zeros(wanted.dbias ? C : 0),
              zeros(wanted.dposition ? o.shape.P() * C : 0), Buffer(wanted.dimages ? B * 3 * S * S : 0, DType::f32)};
  Buffer patches(rows * K, o.dtype), dy_rounded(rows * C, o.dtype);
  kernels::patch_embedding(
      backend, kernels::PatchEmbedding{o.images, o.weight, o.bias, o.position, out.y, patches, B, C, S, p, o.dtype},
      stream);
  kernels::patch_embedding_backward(
      backend,
      kernels::PatchEmbeddingBackward{o.images, o.weight, o.dy, out.dweight, out.dbias, out.dposition, out.dimages,
                                      patches, dy_rounded, B, C, S, p, o.dtype},
      stream);
  CHECK(patches.intact());
  CHECK(dy_rounded.intact());
  return out;
}

void check_same_bits(const Outputs& a, const Outputs& b) {
  CHECK(a.y.same_bits(b.y));
  CHECK(a.dweight.same_bits(b.dweight));
  CHECK(a.dbias.same_bits(b.dbias));
  CHECK(a.dposition.same_bits(b.dposition));
  CHECK(a.dimages.same_bits(b.dimages));
}

void check_outputs(const Outputs& out, const Operands& o) {
  const auto [B, C, S, p] = o.shape;
  const Values images = o.images.values(), weight = o.weight.values(), dy = o.dy.values();
  const auto forward = [&]<class Real>(Real) {
    return reference::patch_embedding<Real>(images, weight, o.bias.values(), o.position.values(), B, S, p, o.dtype);
  };
  const auto backward = [&]<class Real>(Real) {
    return reference::patch_embedding_backward<Real>(images, weight, dy, B, C, S, p, o.dtype);
  };
  check_close("y", out.y.values(), forward(double()), forward(float()));
  const auto exact = backward(double()), rounded = backward(float());
  check_close("dweight", out.dweight.values(), exact.dweight, rounded.dweight);
  check_close("dbias", out.dbias.values(), exact.dbias, rounded.dbias);
  check_close("dposition", out.dposition.values(), exact.dposition, rounded.dposition);
  check_close("dimages", out.dimages.values(), exact.dimages, rounded.dimages);
}

TEST_CASE("patch embedding and its gradients are as exact as the plain formula") {
  for_each_backend([](auto backend, Stream stream) {
    for (DType dtype : kFloatDTypes)
      for (Case shape : kCases)
        for (bool with_position : {false, true}) {
          CAPTURE(name_of(dtype), shape.B, shape.C, shape.S, shape.p, with_position);
          const Operands operands = random_operands(shape, dtype, with_position);
          const Outputs out = run(backend, stream, operands);
          check_outputs(out, operands);
          check_same_bits(out, run(backend, stream, operands));
        }
  });
}

TEST_CASE("patch embedding's gradients are sums over any number of patches") {
  for_each_backend([](auto backend, Stream stream) {
    const Operands operands = random_operands({11, 6, 40, 4}, DType::bf16, true);
    const Outputs out = run(backend, stream, operands);
    check_outputs(out, operands);
    check_same_bits(out, run(backend, stream, operands));
  });
}

TEST_CASE("patch embedding computes the gradients that are asked for, each alone") {
  for_each_backend([](auto backend, Stream stream) {
    for (DType dtype : kFloatDTypes) {
      const Operands o = random_operands(kCases[2], dtype, true);
      const Outputs all = run(backend, stream, o);
      CHECK(run(backend, stream, o, {true, false, false, false}).dweight.same_bits(all.dweight));
      CHECK(run(backend, stream, o, {false, true, false, false}).dbias.same_bits(all.dbias));
      CHECK(run(backend, stream, o, {false, false, true, false}).dposition.same_bits(all.dposition));
      CHECK(run(backend, stream, o, {false, false, false, true}).dimages.same_bits(all.dimages));
    }
  });
}

TEST_CASE("patch embedding adds to the gradients of its parameters") {
  for_each_backend([](auto backend, Stream stream) {
    Operands o = random_operands(kCases[1], DType::f32, true);
    const auto [B, C, S, p] = o.shape;
    const int64_t rows = B * o.shape.P(), K = o.shape.K();
    const Outputs once = run(backend, stream, o);
    Outputs twice = once;
    Buffer patches(rows * K, DType::f32), scratch(rows * C, DType::f32);
    kernels::patch_embedding_backward(
        backend,
        kernels::PatchEmbeddingBackward{o.images, o.weight, o.dy, twice.dweight, twice.dbias, twice.dposition,
                                        twice.dimages, patches, scratch, B, C, S, p, DType::f32},
        stream);
    const auto doubled = [](const Buffer& x) {
      Values values = x.values();
      for (double& value : values) value *= 2;
      return values;
    };
    check_close("dweight", twice.dweight.values(), doubled(once.dweight), doubled(once.dweight));
    check_close("dbias", twice.dbias.values(), doubled(once.dbias), doubled(once.dbias));
    check_close("dposition", twice.dposition.values(), doubled(once.dposition), doubled(once.dposition));
    CHECK(twice.dimages.same_bits(once.dimages));
  });
}

TEST_CASE("the patch embedding reference's gradients are the slopes of its output") {
  const Operands o = random_operands({2, 3, 5, 2}, DType::f32, true);
  const Values images = o.images.values(), weight = o.weight.values(), bias = o.bias.values();
  const Values position = o.position.values(), dy = o.dy.values();
  const auto value = [&](const Values& images, const Values& weight, const Values& bias, const Values& position) {
    return dot(dy, reference::patch_embedding<double>(images, weight, bias, position, 2, 5, 2, DType::f32));
  };
  const auto slope = reference::patch_embedding_backward<double>(images, weight, dy, 2, 3, 5, 2, DType::f32);
  check_slope(
      "dimages", [&](const Values& at) { return value(at, weight, bias, position); }, images, slope.dimages);
  check_slope(
      "dweight", [&](const Values& at) { return value(images, at, bias, position); }, weight, slope.dweight);
  check_slope(
      "dbias", [&](const Values& at) { return value(images, weight, at, position); }, bias, slope.dbias);
  check_slope(
      "dposition", [&](const Values& at) { return value(images, weight, bias, at); }, position, slope.dposition);
}

TEST_CASE("patch embedding agrees with PyTorch, which passes the same rule") {
  const OpFixture fixture("patch_embedding");
  constexpr Case kSettings[] = {{2, 64, 32, 8}, {1, 3, 4, 4}, {1, 10, 21, 7}};
  for (int k = 0; k < 3; ++k) {
    CAPTURE(k);
    const auto f32 = [&](const char* name) { return Buffer(fixture(k, name), DType::f32); };
    const Operands o{kSettings[k],   DType::f32,         f32("in.images"), f32("in.weight"),
                     f32("in.bias"), f32("in.position"), f32("upstream")};
    check_outputs({f32("out"), f32("grad.weight"), f32("grad.bias"), f32("grad.position"), f32("grad.images")}, o);
    for_each_backend([&](auto backend, Stream stream) { check_outputs(run(backend, stream, o), o); });
  }
}

}  // namespace
}  // namespace nanovlm::testing
