#include "kernels/cross_entropy/head_cross_entropy.h"
#include "kernels/gemm/gemm.h"

#include "tests/support/backends.h"
#include "tests/support/fixture.h"
#include "tests/support/product_reference.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

struct Case {
  int64_t R, V;
};
// Around the block in which the CPU looks for the maximum, and the model's vocabulary.
constexpr Case kCases[] = {{1, 1}, {7, 31}, {9, 33}, {7, 1000}, {3, 2049}, {1, 49152}};

struct Operands {
  Buffer logits, targets;
  int64_t V;
  float scale;
};

struct Outputs {
  Buffer loss, dlogits;
};

template <class Backend>
Outputs run(Backend backend, Stream stream, Operands o, DType dtype, bool in_place = false) {
  const int64_t R = o.targets.values().size();
  Outputs out{Buffer(R, DType::f32), in_place ? o.logits : Buffer(R * o.V, dtype)};
  kernels::cross_entropy(backend,
                         kernels::CrossEntropy{in_place ? out.dlogits : o.logits, o.targets, out.loss, out.dlogits, R,
                                               o.V, o.scale, dtype},
                         stream);
  return out;
}

void check_same_bits(const Outputs& a, const Outputs& b) {
  CHECK(a.loss.same_bits(b.loss));
  CHECK(a.dlogits.same_bits(b.dlogits));
}

template <class Real>
reference::CrossEntropy expected(const Operands& o, DType dtype) {
  return reference::cross_entropy<Real>(o.logits.values(), o.targets.values(), o.V, o.scale, dtype);
}

void check_outputs(const Outputs& out, const Operands& o) {
  const DType dtype = out.dlogits.dtype();
  const reference::CrossEntropy exact = expected<double>(o, dtype), rounded = expected<float>(o, dtype);
  check_close("loss", out.loss.values(), exact.loss, rounded.loss, max_magnitude(o.logits.values()));
  check_close("dlogits", out.dlogits.values(), exact.dlogits, rounded.dlogits, o.scale);  // p - 1 may cancel
}

Operands random_operands(Case shape, double deviation, double mean = 0) {
  Random random(shape.V);
  return {random.normal(shape.R * shape.V, DType::f32, deviation, mean), random.integers(shape.R, shape.V), shape.V,
          0.37f};
}

TEST_CASE("cross entropy and its gradient are as exact as the plain formula") {
  for_each_backend([](auto backend, Stream stream) {
    for (DType dtype : kFloatDTypes)
      for (Case shape : kCases)
        for (double deviation : {1.0, 20.0}) {
          CAPTURE(name_of(dtype), shape.R, shape.V, deviation);
          const Operands operands = random_operands(shape, deviation);
          const Outputs out = run(backend, stream, operands, dtype);
          check_outputs(out, operands);
          check_same_bits(out, run(backend, stream, operands, dtype));
          if (dtype == DType::f32)
            check_same_bits(out, run(backend, stream, operands, dtype, true));  // over the logits
        }
  });
}

TEST_CASE("cross entropy of logits far from 0, and of rows with -inf") {
  for_each_backend([](auto backend, Stream stream) {
    for (double mean : {-1e4, 1e4}) {
      const Operands far = random_operands({9, 1000}, 5, mean);
      check_outputs(run(backend, stream, far, DType::f32), far);
    }
    Operands masked = random_operands({2, 5000}, 1);
    Values logits = masked.logits.values();
    const double infinity = std::numeric_limits<double>::infinity();
    std::fill(logits.begin(), logits.begin() + 4500, -infinity);  // whole blocks, before anything finite is seen
    masked.logits = Buffer(logits, DType::f32);
    masked.targets = Buffer({4999, 0}, DType::i32);
    check_outputs(run(backend, stream, masked, DType::f32), masked);
  });
}

TEST_CASE("NaN in a row of logits reaches its loss and no other row's") {
  for_each_backend([](auto backend, Stream stream) {
    Operands bad = random_operands({2, 4100}, 1);
    Values logits = bad.logits.values();
    logits[70] = NAN;
    bad.logits = Buffer(logits, DType::f32);
    const Outputs out = run(backend, stream, bad, DType::f32);
    CHECK(std::isnan(out.loss.values()[0]));
    CHECK(std::isfinite(out.loss.values()[1]));
    CHECK(std::isnan(out.dlogits.values()[0]));
    CHECK(std::isfinite(out.dlogits.values()[4100]));
  });
}

TEST_CASE("cross entropy without a gradient") {
  for_each_backend([](auto backend, Stream stream) {
    Operands o = random_operands({9, 33}, 1);
    Buffer loss(9, DType::f32), none(0, DType::f32);
    kernels::cross_entropy(backend, kernels::CrossEntropy{o.logits, o.targets, loss, none, 9, o.V, o.scale, DType::f32},
                           stream);
    CHECK(loss.intact());
    CHECK(loss.same_bits(run(backend, stream, o, DType::f32).loss));
  });
}

TEST_CASE("cross entropy gives the same bits on one thread and on two") {
  for_each_backend([](auto backend) {
    const Operands operands = random_operands({50, 1001}, 3);
    with_threads(1, [&] {
      const Outputs one = run(backend, {}, operands, DType::bf16);
      with_threads(2, [&] { check_same_bits(one, run(backend, {}, operands, DType::bf16)); });
    });
  });
}

TEST_CASE("cross entropy's reference gradient is the slope of its loss") {
  const Operands o = random_operands({3, 17}, 2);
  const Values targets = o.targets.values();
  const auto value = [&](const Values& logits) {
    return dot(Values(3, o.scale), reference::cross_entropy<double>(logits, targets, 17, 1, DType::f32).loss);
  };
  check_slope("dlogits", value, o.logits.values(), expected<double>(o, DType::f32).dlogits);
}

TEST_CASE("cross entropy agrees with PyTorch, which passes the same rule") {
  const OpFixture fixture("cross_entropy");
  for (int k = 0; k < 3; ++k) {
    CAPTURE(k);
    // PyTorch leaves out the rows whose target is -100 and takes the mean of the others.
    const Values all = fixture(k, "const.targets"), logits = fixture(k, "in.logits"), slope = fixture(k, "grad.logits");
    const int64_t V = fixture.shape(k, "in.logits")[1];
    Values targets, rows, gradient;
    for (size_t r = 0; r < all.size(); ++r)
      if (all[r] >= 0) {
        targets.push_back(all[r]);
        rows.insert(rows.end(), logits.begin() + r * V, logits.begin() + (r + 1) * V);
        gradient.insert(gradient.end(), slope.begin() + r * V, slope.begin() + (r + 1) * V);
      }
    const double R = static_cast<double>(targets.size()), upstream = fixture(k, "upstream")[0];
    const Operands o{Buffer(rows, DType::f32), Buffer(targets, DType::i32), V, static_cast<float>(upstream / R)};
    const auto exact = expected<double>(o, DType::f32), rounded = expected<float>(o, DType::f32);
    check_close("PyTorch's gradient", gradient, exact.dlogits, rounded.dlogits, o.scale);
    const auto mean = [&](const Values& loss) { return Values{dot(loss, Values(loss.size(), 1 / R))}; };
    check_close("PyTorch's mean", fixture(k, "out"), mean(exact.loss), mean(rounded.loss), max_magnitude(rows));
    for_each_backend([&](auto backend, Stream stream) { check_outputs(run(backend, stream, o, DType::f32), o); });
  }
}

// ---- through the head

struct HeadCase {
  int64_t R, V, C;
};

struct HeadOperands {
  Buffer h, weight, targets;
  HeadCase shape;
  float scale = 0.37f;

  HeadOperands(HeadCase shape, DType dtype) : HeadOperands(shape, dtype, Random(shape.R + shape.V)) {}

  template <class Real>
  reference::CrossEntropy expected() const {
    const Values logits = reference::product<Real>({shape.R, shape.V, shape.C, false, true, DType::f32}, h.values(),
                                                   weight.values(), {}, {});
    return reference::cross_entropy<Real>(logits, targets.values(), shape.V, scale, h.dtype());
  }

 private:
  HeadOperands(HeadCase shape, DType dtype, Random random)
      : h(random.normal(shape.R * shape.C, dtype)),
        weight(random.normal(shape.V * shape.C, dtype, 2 / std::sqrt(shape.C))),
        targets(random.integers(shape.R, shape.V)),
        shape(shape) {}
};

template <class Backend>
Outputs run(Backend backend, Stream stream, HeadOperands& o, bool gradient = true) {
  const DType dtype = o.h.dtype();
  const bool stored = kernels::head_stores_logits(kernels::kHasGemm<Backend>, dtype);
  const auto [R, V, C] = o.shape;
  Outputs out{Buffer(R, DType::f32), Buffer(gradient ? R * V : 0, dtype)};
  Buffer logits(stored ? R * V : 0, DType::f32);
  kernels::head_cross_entropy(
      backend,
      kernels::HeadCrossEntropy{o.h, o.weight, o.targets, out.loss, out.dlogits, logits, R, V, C, o.scale, dtype},
      stream);
  return out;
}

TEST_CASE("cross entropy through the head is as exact as the plain formula") {
  // One tile and part of one; three tiles of the vocabulary, and of rows; four steps along a row.
  for (DType dtype : kFloatDTypes)
    for (HeadCase shape : {HeadCase{1, 1, 8}, {7, 300, 37}, {130, 140, 16}, {3, 131, 200}}) {
      CAPTURE(name_of(dtype), shape.R, shape.V, shape.C);
      HeadOperands operands(shape, dtype);
      const reference::CrossEntropy exact = operands.expected<double>(), rounded = operands.expected<float>();
      for_each_backend([&](auto backend, Stream stream) {
        const Outputs out = run(backend, stream, operands);
        check_close("loss", out.loss.values(), exact.loss, rounded.loss, 8);
        check_close("dlogits", out.dlogits.values(), exact.dlogits, rounded.dlogits, operands.scale);
        check_same_bits(out, run(backend, stream, operands));
        CHECK(out.loss.same_bits(run(backend, stream, operands, false).loss));
      });
    }
}

TEST_CASE("NaN in a row of the head's input reaches its loss and no other row's") {
  for_each_backend([](auto backend, Stream stream) {
    HeadOperands o({3, 150, 16}, DType::bf16);
    Values h = o.h.values();
    h[16] = NAN;
    o.h = Buffer(h, DType::bf16);
    const Values loss = run(backend, stream, o).loss.values();
    CHECK(std::isfinite(loss[0]));
    CHECK(std::isnan(loss[1]));
    CHECK(std::isfinite(loss[2]));
  });
}

}  // namespace
}  // namespace nanovlm::testing
