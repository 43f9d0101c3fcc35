#include "kernels/norm/norm.h"

#include "tests/support/backends.h"
#include "tests/support/fixture.h"
#include "tests/support/reference.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

struct Case {
  int64_t R, C;
};
// One entry; one short of and one more than a vector or a warp; the models' own width; rows that fill no quads; many
// rows; held rows for more than one block of the parameters' gradients, each warp with several.
constexpr Case kCases[] = {{1, 1}, {7, 31}, {9, 33}, {1, 576}, {5, 578}, {3, 768}, {7, 1001}, {300, 17}, {70, 132}};
// Rows that a block holds: one quad more than a warp does, a warp's width and a quad more, SmolLM2-360M's in several
// blocks, SigLIP so400m's, more than the forward pass holds; and more than a block does.
constexpr Case kWideCases[] = {{2, 772}, {1, 1028}, {33, 960}, {3, 1152}, {1, 2052}, {1, 6148}};

// What a norm reads. Without `centered` it is RMSNorm, and b and db are null.
struct Operands {
  bool centered;
  int64_t R, C;
  DType dtype;
  Buffer x, delta, w, b, dy, dsum, dw, db;
  float eps = 1e-5f;
  int late_output = -1;  // which of sum, y, dx, ddelta fits no vector

  Operands(bool centered, bool with_delta, Case shape, DType dtype, Random random = Random(7))
      : centered(centered),
        R(shape.R),
        C(shape.C),
        dtype(dtype),
        x(random.normal(R * C, DType::f32, 2, 0.5)),
        delta(random.normal(with_delta ? R * C : 0, dtype)),
        w(random.normal(C, DType::f32, 0.3, 1)),
        b(random.normal(centered ? C : 0, DType::f32)),
        dy(random.normal(R * C, dtype)),
        dsum(random.normal(with_delta ? R * C : 0, DType::f32)),
        dw(random.normal(C, DType::f32)),
        db(random.normal(centered ? C : 0, DType::f32)) {}

  // Case k of PyTorch's own results
  Operands(bool centered, const OpFixture& fixture, int k)
      : centered(centered),
        R(fixture.shape(k, "in.x").numel() / fixture.shape(k, "in.weight")[0]),
        C(fixture.shape(k, "in.weight")[0]),
        dtype(DType::f32),
        x(fixture(k, "in.x"), dtype),
        delta(0, dtype),
        w(fixture(k, "in.weight"), dtype),
        b(fixture(k, "in.bias"), dtype),
        dy(fixture(k, "upstream"), dtype),
        dsum(0, dtype),
        dw(Values(C), dtype),
        db(Values(centered ? C : 0), dtype),
        eps(centered ? 1e-6f : 1e-5f) {}

  template <class Real>
  reference::Norm forward() const {
    return reference::norm<Real>(x.values(), delta.values(), w.values(), b.values(), C, eps, dtype, centered);
  }
  template <class Real>
  reference::NormGradients backward(const Values& sum) const {
    return reference::norm_backward<Real>(dy.values(), sum, w.values(), dsum.values(), dw.values(), db.values(), C, eps,
                                          dtype, centered);
  }
};

struct Outputs {
  Buffer sum, y, m, r, dx, ddelta, dw, db;
};

// Forward and backward. `in_place`: x' replaces x, and dx replaces dsum, as the contract allows.
template <class Backend>
Outputs run(Backend backend, Stream stream, const Operands& operands, bool in_place = false) {
  Operands o = operands;
  const int64_t n = o.R * o.C;
  const auto made = [&](int output, DType dtype) { return Buffer(n, dtype, output == o.late_output); };
  Outputs out{in_place ? o.x : made(0, DType::f32),
              made(1, o.dtype),
              Buffer(o.centered ? o.R : 0, DType::f32),
              Buffer(o.R, DType::f32),
              in_place ? o.dsum : made(2, DType::f32),
              made(3, o.dtype),
              o.dw,
              o.db};
  Buffer& x = in_place ? out.sum : o.x;
  Buffer& dsum = in_place ? out.dx : o.dsum;
  Buffer none(0, o.dtype);
  const bool summed = static_cast<const void*>(o.delta) != nullptr;
  if (o.centered) {
    kernels::layer_norm(
        backend, kernels::LayerNorm{x, o.delta, o.w, o.b, out.sum, out.y, out.m, out.r, o.R, o.C, o.eps, o.dtype},
        stream);
    kernels::layer_norm_backward(backend,
                                 kernels::LayerNormBackward{o.dy, summed ? out.sum : x, none, o.w, out.m, out.r, dsum,
                                                            out.dx, out.ddelta, out.dw, out.db, o.R, o.C, o.dtype},
                                 stream);
  } else {
    kernels::rms_norm(backend, kernels::RmsNorm{x, o.delta, o.w, out.sum, out.y, out.r, o.R, o.C, o.eps, o.dtype},
                      stream);
    kernels::rms_norm_backward(backend,
                               kernels::RmsNormBackward{o.dy, summed ? out.sum : x, none, o.w, out.r, dsum, out.dx,
                                                        out.ddelta, out.dw, o.R, o.C, o.dtype},
                               stream);
  }
  return out;
}

void check_same_bits(const Outputs& a, const Outputs& b) {
  CHECK(a.sum.same_bits(b.sum));
  CHECK(a.y.same_bits(b.y));
  CHECK(a.m.same_bits(b.m));
  CHECK(a.r.same_bits(b.r));
  CHECK(a.dx.same_bits(b.dx));
  CHECK(a.ddelta.same_bits(b.ddelta));
  CHECK(a.dw.same_bits(b.dw));
  CHECK(a.db.same_bits(b.db));
}

// Largest magnitudes that cancel on the way to dx = r (g - mean(g) - n mean(g n)) + dsum, all but entirely for C = 1
// and 2, and to dw, a sum of dy (x - m) r: where x - m is tiny its rounding counts r times.
double terms_of_dx(const Operands& o, const reference::Norm& exact) {
  return max_magnitude(exact.r) * max_magnitude(o.dy.values()) * max_magnitude(o.w.values());
}
double terms_of_dw(const Operands& o, const reference::Norm& exact) {
  const double products = max_magnitude(exact.r) * max_magnitude(o.dy.values()) * max_magnitude(exact.m);
  return std::max(products, max_magnitude(o.dw.values()));
}

void check_outputs(const Outputs& out, const Operands& o) {
  const reference::Norm exact = o.forward<double>(), rounded = o.forward<float>();
  const Values sum = o.delta.values().empty() ? o.x.values() : out.sum.values();
  if (!o.delta.values().empty()) CHECK(max_error(sum, rounded.sum) == 0);
  check_close("y", out.y.values(), exact.y, rounded.y, max_magnitude(o.b.values()));
  check_close("r", out.r.values(), exact.r, rounded.r);
  if (o.centered) check_close("m", out.m.values(), exact.m, rounded.m, max_magnitude(sum));

  // Both references read the x' that the kernel read.
  const reference::NormGradients slope = o.backward<double>(sum), plain = o.backward<float>(sum);
  check_close("dx", out.dx.values(), slope.dx, plain.dx, terms_of_dx(o, exact));
  check_close("ddelta", out.ddelta.values(), slope.ddelta, plain.ddelta, terms_of_dx(o, exact));
  check_close("dw", out.dw.values(), slope.dw, plain.dw, terms_of_dw(o, exact));
  if (o.centered) check_close("db", out.db.values(), slope.db, plain.db, max_magnitude(o.db.values()));
}

template <class Backend>
void check_case(Backend backend, Stream stream, bool centered, bool with_delta, DType dtype, Case shape) {
  CAPTURE(centered, with_delta, name_of(dtype), shape.R, shape.C);
  const Operands operands(centered, with_delta, shape, dtype);
  const Outputs out = run(backend, stream, operands);
  check_outputs(out, operands);
  check_same_bits(out, run(backend, stream, operands));
}

TEST_CASE("norms and their gradients are as exact as the plain formula") {
  for_each_backend([](auto backend, Stream stream) {
    for (bool centered : {false, true})
      for (bool with_delta : {false, true})
        for (DType dtype : kFloatDTypes)
          for (Case shape : kCases) check_case(backend, stream, centered, with_delta, dtype, shape);
  });
}

TEST_CASE("norms of wide rows are as exact as the plain formula") {
  for_each_backend([](auto backend, Stream stream) {
    for (bool centered : {false, true})
      for (DType dtype : kFloatDTypes)
        for (Case shape : kWideCases) check_case(backend, stream, centered, true, dtype, shape);
  });
}

TEST_CASE("norms of no rows write nothing, and add nothing to the parameters' gradients") {
  for_each_backend([](auto backend, Stream stream) {
    for (bool centered : {false, true})
      for (const int64_t C : {33, 576, 960}) {
        const Operands operands(centered, true, {0, C}, DType::bf16);
        const Outputs out = run(backend, stream, operands);
        CHECK(out.dw.same_bits(operands.dw));
        CHECK(out.db.same_bits(operands.db));
      }
  });
}

TEST_CASE("a norm may write x' over x, and dx over dsum") {
  for_each_backend([](auto backend, Stream stream) {
    for (bool centered : {false, true})
      for (DType dtype : kFloatDTypes)
        for (const int64_t C : {33, 576, 960}) {
          const Operands operands(centered, true, {3, C}, dtype);
          check_same_bits(run(backend, stream, operands, true), run(backend, stream, operands));
        }
  });
}

// Forward and backward from x and delta, with no room for their sum.
template <class Backend>
Outputs run_without_sum(Backend backend, Stream stream, const Operands& operands, const Outputs& with) {
  Operands o = operands;
  const int64_t n = o.R * o.C;
  Buffer none(0, DType::f32);
  Outputs out{with.sum,
              Buffer(n, o.dtype),
              Buffer(o.centered ? o.R : 0, DType::f32),
              Buffer(o.R, DType::f32),
              Buffer(n, DType::f32),
              Buffer(n, o.dtype),
              o.dw,
              o.db};
  if (o.centered) {
    kernels::layer_norm(backend,
                        kernels::LayerNorm{o.x, o.delta, o.w, o.b, none, out.y, out.m, out.r, o.R, o.C, o.eps, o.dtype},
                        stream);
    kernels::layer_norm_backward(backend,
                                 kernels::LayerNormBackward{o.dy, o.x, o.delta, o.w, out.m, out.r, o.dsum, out.dx,
                                                            out.ddelta, out.dw, out.db, o.R, o.C, o.dtype},
                                 stream);
  } else {
    kernels::rms_norm(backend, kernels::RmsNorm{o.x, o.delta, o.w, none, out.y, out.r, o.R, o.C, o.eps, o.dtype},
                      stream);
    kernels::rms_norm_backward(
        backend,
        kernels::RmsNormBackward{o.dy, o.x, o.delta, o.w, out.r, o.dsum, out.dx, out.ddelta, out.dw, o.R, o.C, o.dtype},
        stream);
  }
  return out;
}

TEST_CASE("a norm and its gradient add delta on the way, with the same bits") {
  for_each_backend([](auto backend, Stream stream) {
    for (bool centered : {false, true})
      for (DType dtype : kFloatDTypes)
        for (Case shape : {Case{9, 33}, {70, 132}, {1, 576}, {3, 960}}) {
          CAPTURE(centered, name_of(dtype), shape.R, shape.C);
          const Operands operands(centered, true, shape, dtype);
          const Outputs out = run(backend, stream, operands);
          check_same_bits(out, run_without_sum(backend, stream, operands, out));
        }
  });
}

TEST_CASE("norms read and write one by one what fits no vector") {
  for_each_backend([](auto backend, Stream stream) {
    for (bool centered : {false, true})
      for (DType dtype : kFloatDTypes)
        for (int late = 0; late < 10; ++late) {
          CAPTURE(centered, name_of(dtype), late);
          Operands o(centered, true, dtype == DType::f32 ? Case{1, 772} : Case{3, 8}, dtype);
          Buffer* const inputs[] = {&o.x, &o.delta, &o.w, &o.b, &o.dy, &o.dsum};
          if (late < 6) *inputs[late] = Buffer(*inputs[late], 1);
          o.late_output = late - 6;
          const Outputs out = run(backend, stream, o);
          check_outputs(out, o);
          check_outputs(run_without_sum(backend, stream, o, out), o);
        }
  });
}

TEST_CASE("norms give the same bits on one thread and on two") {
  for_each_backend([](auto backend) {
    for (bool centered : {false, true}) {
      const Operands operands(centered, true, {301, 333}, DType::bf16);
      with_threads(1, [&] {
        const Outputs one = run(backend, {}, operands);
        with_threads(2, [&] { check_same_bits(one, run(backend, {}, operands)); });
      });
    }
  });
}

TEST_CASE("norms skip the outputs that are not asked for") {
  for_each_backend([](auto backend, Stream stream) {
    for (const int64_t C : {33, 576, 960}) {
      Operands o(false, false, {9, C}, DType::f32);
      Buffer none(0, DType::f32), y(9 * C, DType::f32), r(9, DType::f32), dx(9 * C, DType::f32);
      kernels::rms_norm(backend, kernels::RmsNorm{o.x, none, o.w, none, y, r, 9, C, o.eps, DType::f32}, stream);
      kernels::rms_norm_backward(
          backend, kernels::RmsNormBackward{o.dy, o.x, none, o.w, r, none, dx, none, none, 9, C, DType::f32}, stream);
      CHECK(dx.same_bits(run(backend, stream, o).dx));
    }
  });
}

TEST_CASE("a norm of zeros is finite, and NaN stays in its row") {
  for_each_backend([](auto backend, Stream stream) {
    for (bool centered : {false, true}) {
      Operands zeros(centered, false, {2, 33}, DType::f32);
      zeros.x = Buffer(Values(2 * 33), DType::f32);
      CHECK(max_magnitude(run(backend, stream, zeros).y.values()) <= max_magnitude(zeros.b.values()));

      Operands bad(centered, false, {2, 33}, DType::bf16);
      Values x = bad.x.values();
      x[5] = NAN;
      bad.x = Buffer(x, DType::f32);
      const Values y = run(backend, stream, bad).y.values();
      for (int64_t c = 0; c < 33; ++c) CHECK(std::isnan(y[c]));
      for (int64_t c = 33; c < 66; ++c) CHECK(std::isfinite(y[c]));
    }
  });
}

TEST_CASE("the norm reference's gradients are the slopes of its outputs") {
  for (bool centered : {false, true}) {
    Operands o(centered, false, {3, 7}, DType::f32);
    const Values x = o.x.values(), w = o.w.values(), b = o.b.values(), dy = o.dy.values(), none;
    const Values dw(7), db(centered ? 7 : 0);
    const auto value = [&](const Values& x, const Values& w, const Values& b) {
      return dot(dy, reference::norm<double>(x, none, w, b, 7, 1e-5, DType::f32, centered).y);
    };
    const auto slope = reference::norm_backward<double>(dy, x, w, none, dw, db, 7, 1e-5, DType::f32, centered);
    check_slope(
        "dx", [&](const Values& at) { return value(at, w, b); }, x, slope.dx);
    check_slope(
        "dw", [&](const Values& at) { return value(x, at, b); }, w, slope.dw);
    if (centered)
      check_slope(
          "db", [&](const Values& at) { return value(x, w, at); }, b, slope.db);
  }
}

TEST_CASE("norms agree with PyTorch, which passes the same rule") {
  for (bool centered : {false, true}) {
    const OpFixture fixture(centered ? "layer_norm" : "rms_norm");
    for (int k = 0; k < 3; ++k) {
      CAPTURE(centered, k);
      const Operands o(centered, fixture, k);
      const reference::Norm exact = o.forward<double>(), rounded = o.forward<float>();
      const auto slope = o.backward<double>(o.x.values()), plain = o.backward<float>(o.x.values());
      check_close("PyTorch's y", fixture(k, "out"), exact.y, rounded.y);
      check_close("PyTorch's dx", fixture(k, "grad.x"), slope.dx, plain.dx, terms_of_dx(o, exact));
      check_close("PyTorch's dw", fixture(k, "grad.weight"), slope.dw, plain.dw, terms_of_dw(o, exact));
      if (centered) check_close("PyTorch's db", fixture(k, "grad.bias"), slope.db, plain.db);
      for_each_backend([&](auto backend, Stream stream) { check_outputs(run(backend, stream, o), o); });
    }
  }
}

}  // namespace
}  // namespace nanovlm::testing
