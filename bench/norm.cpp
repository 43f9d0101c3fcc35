// bench/norm [--preset lm|vit] [--columns 576,960] [--dir fwd,bwd] ...
//
// The norms with the residual add before them, as the models call them. lm: RMSNorm over 576 columns, 128 rows a
// sample; vit: LayerNorm over 768, 196 rows; or over other numbers of columns. The residual stream is fp32, delta and y
// have the dtype. Least bytes: x, delta, sum and y once; backward dy, x, dsum, dx and ddelta. naive: the adds by
// themselves, and backward the rounding.
#include "kernels/norm/norm.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "bench/common/kernel_bench.h"
#include "kernels/elementwise/elementwise.h"
#include "tests/support/reference.h"

using namespace nanovlm;
using namespace nanovlm::bench;
namespace reference = nanovlm::testing::reference;

namespace {

constexpr float kEps = 1e-5f;

struct Problem {
  int64_t R, C;
  bool centered;  // LayerNorm
  DType dtype;
};

struct Operands {
  Problem s;
  Tensor x, delta, w, b, sum, y, m, r, dy, dsum, dx, ddelta, dw, db;

  Operands(const Problem& s, const Device& device, uint64_t seed) : s(s) {
    Random random(seed);
    const auto rows = [&](DType dtype) { return normal({s.R, s.C}, dtype, random, device); };
    x = rows(DType::f32), dsum = rows(DType::f32), delta = rows(s.dtype), dy = rows(s.dtype);
    w = normal({s.C}, DType::f32, random, device), b = normal({s.C}, DType::f32, random, device);
    sum = empty_like(x), dx = empty_like(x), y = empty_like(delta), ddelta = empty_like(delta);
    m = empty({s.R}, DType::f32, device), r = empty_like(m), dw = zeros_like(w), db = zeros_like(b);
  }

  void forward(const Tensor& from, const Tensor& added) const {
    on(x.device(), "norm", [&](auto backend, Stream stream) {
      if (s.centered)
        kernels::layer_norm(backend,
                            {from.f32(), added.data(), w.f32(), b.f32(), sum.f32(), y.data(), m.f32(), r.f32(), s.R,
                             s.C, kEps, s.dtype},
                            stream);
      else
        kernels::rms_norm(backend,
                          {from.f32(), added.data(), w.f32(), sum.f32(), y.data(), r.f32(), s.R, s.C, kEps, s.dtype},
                          stream);
    });
  }
  void add_then_norm() const {
    on(x.device(), "add", [&](auto backend, Stream stream) {
      kernels::add(backend, {x.data(), delta.data(), sum.data(), s.R * s.C, DType::f32, s.dtype, DType::f32}, stream);
    });
    forward(sum, {});
  }
  // Of x as the sum; dw and db are added to, so what they hold after a first run is the gradient.
  void backward(const Tensor& added, const Tensor& rounded) const {
    on(x.device(), "norm_backward", [&](auto backend, Stream stream) {
      if (s.centered)
        kernels::layer_norm_backward(
            backend,
            {dy.data(), x.f32(), nullptr, w.f32(), m.f32(), r.f32(), static_cast<float*>(added.data()), dx.f32(),
             rounded.data(), dw.f32(), db.f32(), s.R, s.C, s.dtype},
            stream);
      else
        kernels::rms_norm_backward(backend,
                                   {dy.data(), x.f32(), nullptr, w.f32(), r.f32(), static_cast<float*>(added.data()),
                                    dx.f32(), rounded.data(), dw.f32(), s.R, s.C, s.dtype},
                                   stream);
    });
  }

  // The norm's own gradient, then the one from elsewhere added, then rounded.
  void backward_then_add() const {
    on(x.device(), "norm_backward", [&](auto backend, Stream stream) {
      for (const Tensor& sums : {dw, db}) kernels::fill(backend, {sums.data(), s.C, 0.0f, DType::f32}, stream);
    });
    backward({}, {});
    on(x.device(), "add", [&](auto backend, Stream stream) {
      kernels::add(backend, {dx.data(), dsum.data(), dx.data(), s.R * s.C, DType::f32, DType::f32, DType::f32}, stream);
      kernels::cast(backend, {dx.data(), ddelta.data(), s.R * s.C, DType::f32, s.dtype}, stream);
    });
  }

  std::vector<Outcome> forward_outcomes() const {
    const Values in = values_of(x), added = values_of(delta), scale = values_of(w);
    const Values shift = s.centered ? values_of(b) : Values{};
    const auto of = [&]<class Real>(Type<Real>) {
      return reference::norm<Real>(in, added, scale, shift, s.C, kEps, s.dtype, s.centered);
    };
    auto exact = of(Type<double>{}), rounded = of(Type<float>{});
    return {{"sum", values_of(sum), std::move(exact.sum), std::move(rounded.sum)},
            {"y", values_of(y), std::move(exact.y), std::move(rounded.y)}};
  }
  std::vector<Outcome> backward_outcomes() const {
    const Values none(static_cast<size_t>(s.C));
    const Values slope = values_of(dy), in = values_of(x), scale = values_of(w), other = values_of(dsum);
    const auto of = [&]<class Real>(Type<Real>) {
      return reference::norm_backward<Real>(slope, in, scale, other, none, s.centered ? none : Values{}, s.C, kEps,
                                            s.dtype, s.centered);
    };
    auto exact = of(Type<double>{}), rounded = of(Type<float>{});
    const double terms = std::sqrt(static_cast<double>(s.R));  // the size of sums of R numbers that may cancel
    return {{"dx", values_of(dx), std::move(exact.dx), std::move(rounded.dx)},
            {"ddelta", values_of(ddelta), std::move(exact.ddelta), std::move(rounded.ddelta)},
            {"dw", values_of(dw), std::move(exact.dw), std::move(rounded.dw), terms}};
  }
};

Instance forward_instance(const Problem& s, const Device& device, uint64_t seed) {
  const auto x = std::make_shared<Operands>(s, device, seed);
  return {[x] { x->forward(x->x, x->delta); },
          [x] { return x->forward_outcomes(); },
          {{"naive", [x] { x->add_then_norm(); }}}};
}

Instance backward_instance(const Problem& s, const Device& device, uint64_t seed) {
  const auto x = std::make_shared<Operands>(s, device, seed);
  x->forward(x->x, {});
  return {[x] { x->backward(x->dsum, x->ddelta); },
          [x] { return x->backward_outcomes(); },
          {{"naive", [x] { x->backward_then_add(); }}}};
}

std::vector<KnownExcess> excesses(const Problem& s, const std::string& operation, const std::string& dir) {
  if (s.C % 2 == 0) return {};
  const char* const reason = "rows of odd width begin anywhere: a warp's entries lie in a sector more";
  if (dir == "fwd") return {{operation, "sectors", 1.3, reason}};
  return {{operation + "_backward", "sectors", 1.3, reason}, {"norm_add_parts", "sectors", 1.3, reason}};
}

// Both directions of one problem.
void add_cases(const Problem& s, double full, const Device& device, std::vector<Case>& cases) {
  const double each = static_cast<double>(s.R * s.C), size = static_cast<double>(size_of(s.dtype));
  const auto add = [&](const std::string& dir, double bytes, auto make) {
    Case c{s.centered ? "layer_norm" : "rms_norm", dir, s.dtype, {{"rows", s.R}, {"columns", s.C}}, 0, bytes};
    c.full = full, c.sources = {"kernels/norm/norm.cu"};
    c.excesses = excesses(s, c.operation, dir);
    c.make = [=](uint64_t seed) { return make(s, device, seed); };
    cases.push_back(std::move(c));
  };
  add("fwd", each * (8 + 2 * size), forward_instance);
  add("bwd", each * (12 + 2 * size), backward_instance);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> presets = {"lm", "vit"};
  std::vector<int64_t> columns;
  KernelBench bench("norm", {"fwd", "bwd"});
  bench.app().add_option("--preset", presets, "lm, vit")->delimiter(',')->check(CLI::IsMember({"lm", "vit"}));
  bench.app()
      .add_option("--columns", columns, "of a row; default 576 for lm, 768 for vit")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  return bench.run(argc, argv, [&](const Request& request) {
    std::vector<Case> cases;
    const int64_t B = request.batch_or(256, 12, 4);
    for (const std::string& preset : presets) {
      const bool lm = preset == "lm";
      for (const int64_t C : columns.empty() ? std::vector<int64_t>{lm ? 576 : 768} : columns)
        for (const DType dtype : request.dtypes)
          add_cases({B * (lm ? 128 : 196), C, !lm, dtype}, 256.0 / static_cast<double>(B), request.device, cases);
    }
    return cases;
  });
}
