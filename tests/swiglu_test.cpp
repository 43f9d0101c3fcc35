#include "kernels/swiglu/swiglu.h"

#include <array>

#include "tests/support/backends.h"
#include "tests/support/fixture.h"
#include "tests/support/reference.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

constexpr int64_t kSizes[] = {1, 31, 33, 576, 1001};

struct Operands {
  Buffer gate, up, dy;
};

Operands random_operands(int64_t n, DType dtype, double deviation) {
  Random random(n);
  return {random.normal(n, dtype, deviation), random.normal(n, dtype), random.normal(n, dtype)};
}

struct Outputs {
  Buffer y, dgate, dup, y_again;
};

template <class Backend>
Outputs run(Backend backend, Stream stream, const Operands& operands, bool in_place = false) {
  Operands o = operands;
  const int64_t n = o.gate.values().size();
  const DType dtype = o.gate.dtype();
  Outputs out{Buffer(n, dtype), in_place ? o.dy : Buffer(n, dtype), Buffer(n, dtype), Buffer(n, dtype)};
  kernels::swiglu(backend, kernels::Swiglu{o.gate, o.up, out.y, 1, n, n, dtype}, stream);
  kernels::swiglu_backward(backend,
                           kernels::SwigluBackward{o.gate, o.up, in_place ? out.dgate : o.dy, out.dgate, out.dup,
                                                   out.y_again, 1, n, n, dtype},
                           stream);
  return out;
}

void check_same_bits(const Outputs& a, const Outputs& b) {
  CHECK(a.y.same_bits(b.y));
  CHECK(a.dgate.same_bits(b.dgate));
  CHECK(a.dup.same_bits(b.dup));
  CHECK(a.y_again.same_bits(b.y_again));
}

void check_outputs(const Outputs& out, const Operands& o) {
  const Values gate = o.gate.values(), up = o.up.values(), dy = o.dy.values();
  const DType dtype = o.gate.dtype();
  check_close("y", out.y.values(), reference::swiglu<double>(gate, up, dtype),
              reference::swiglu<float>(gate, up, dtype));
  const auto exact = reference::swiglu_backward<double>(gate, up, dy, dtype);
  const auto rounded = reference::swiglu_backward<float>(gate, up, dy, dtype);
  check_close("dgate", out.dgate.values(), exact.dgate, rounded.dgate);
  check_close("dup", out.dup.values(), exact.dup, rounded.dup);
}

TEST_CASE("swiglu and its gradient are as exact as the plain formula") {
  for_each_backend([](auto backend, Stream stream) {
    for (DType dtype : kFloatDTypes)
      for (int64_t n : kSizes)
        for (double deviation : {0.01, 1.0, 30.0}) {
          CAPTURE(name_of(dtype), n, deviation);
          const Operands operands = random_operands(n, dtype, deviation);
          const Outputs out = run(backend, stream, operands);
          check_outputs(out, operands);
          CHECK(out.y_again.same_bits(out.y));
          check_same_bits(out, run(backend, stream, operands));
          check_same_bits(out, run(backend, stream, operands, true));  // dgate over dy
        }
  });
}

TEST_CASE("swiglu's gradient without the output again") {
  for_each_backend([](auto backend, Stream stream) {
    for (DType dtype : kFloatDTypes) {
      Operands o = random_operands(33, dtype, 1);
      Buffer dgate(33, dtype), dup(33, dtype), none(0, dtype);
      kernels::swiglu_backward(backend, kernels::SwigluBackward{o.gate, o.up, o.dy, dgate, dup, none, 1, 33, 33, dtype},
                               stream);
      const Outputs out = run(backend, stream, o);
      CHECK(dgate.same_bits(out.dgate));
      CHECK(dup.same_bits(out.dup));
      CHECK(dgate.intact());
    }
  });
}

// gate | up of R rows, with or without a gap between the two, or rows.
template <class Backend>
Outputs run_side_by_side(Backend backend, Stream stream, const Operands& o, int64_t R, int64_t stride) {
  const Values gate = o.gate.values(), up = o.up.values();
  const int64_t C = static_cast<int64_t>(gate.size()) / R;
  const DType dtype = o.gate.dtype();
  const auto place = [&](int64_t i) { return i / C * stride + i % C; };
  Values both(static_cast<size_t>(R * stride), 7.0);
  for (int64_t i = 0; i < R * C; ++i) both[place(i)] = gate[i], both[place(i) + C] = up[i];
  Buffer in(both, dtype), gradients(Values(both.size(), 7.0), dtype), dy = o.dy;
  Outputs out{Buffer(R * C, dtype), Buffer(R * C, dtype), Buffer(R * C, dtype), Buffer(R * C, dtype)};
  const auto half = [&](Buffer& of, int64_t at) {
    return static_cast<char*>(static_cast<void*>(of)) + at * size_of(dtype);
  };
  kernels::swiglu(backend, kernels::Swiglu{half(in, 0), half(in, C), out.y, R, C, stride, dtype}, stream);
  kernels::swiglu_backward(backend,
                           kernels::SwigluBackward{half(in, 0), half(in, C), dy, half(gradients, 0), half(gradients, C),
                                                   out.y_again, R, C, stride, dtype},
                           stream);
  const Values found = gradients.values();
  Values dgate(gate.size()), dup(gate.size());
  for (int64_t i = 0; i < R * C; ++i) dgate[i] = found[place(i)], dup[i] = found[place(i) + C];
  for (int64_t r = 0; r < R; ++r)
    for (int64_t c = 2 * C; c < stride; ++c) CHECK(found[r * stride + c] == 7.0);
  out.dgate = Buffer(dgate, dtype), out.dup = Buffer(dup, dtype);
  return out;
}

TEST_CASE("swiglu of gate and up side by side gives the same bits") {
  for_each_backend([](auto backend, Stream stream) {
    for (DType dtype : kFloatDTypes)
      for (const auto& [R, C, gap] : {std::array<int64_t, 3>{1, 33, 0}, {5, 31, 3}, {3, 576, 0}, {2, 2056, 8}}) {
        CAPTURE(name_of(dtype), R, C, gap);
        const Operands operands = random_operands(R * C, dtype, 1);
        check_same_bits(run(backend, stream, operands), run_side_by_side(backend, stream, operands, R, 2 * C + gap));
      }
  });
}

TEST_CASE("swiglu gives the same bits on one thread and on two") {
  for_each_backend([](auto backend) {
    for (DType dtype : kFloatDTypes) {
      const Operands operands = random_operands(50001, dtype, 1);
      with_threads(1, [&] {
        const Outputs one = run(backend, {}, operands);
        with_threads(2, [&] { check_same_bits(one, run(backend, {}, operands)); });
      });
    }
  });
}

TEST_CASE("swiglu far from 0") {
  for_each_backend([](auto backend, Stream stream) {
    const Operands o{Buffer(repeated({200, -200, NAN}, 33), DType::f32), Buffer(Values(99, 2.0), DType::f32),
                     Buffer(Values(99, 1.0), DType::f32)};
    const Outputs out = run(backend, stream, o);
    CHECK(max_error(out.y.values(), repeated({400, 0, NAN}, 33)) == 0);
    CHECK(max_error(out.dgate.values(), repeated({2, 0, NAN}, 33)) == 0);
    CHECK(max_error(out.dup.values(), repeated({200, 0, NAN}, 33)) == 0);
  });
}

TEST_CASE("swiglu's reference gradients are the slopes of its output") {
  const Operands o = random_operands(50, DType::f32, 2);
  const Values gate = o.gate.values(), up = o.up.values(), dy = o.dy.values();
  const auto value = [&](const Values& gate, const Values& up) {
    return dot(dy, reference::swiglu<double>(gate, up, DType::f32));
  };
  const auto slope = reference::swiglu_backward<double>(gate, up, dy, DType::f32);
  check_slope(
      "dgate", [&](const Values& at) { return value(at, up); }, gate, slope.dgate);
  check_slope(
      "dup", [&](const Values& at) { return value(gate, at); }, up, slope.dup);
}

TEST_CASE("swiglu agrees with PyTorch, which passes the same rule") {
  const OpFixture fixture("swiglu");
  for (int k = 0; k < 3; ++k) {
    CAPTURE(k);
    const auto f32 = [&](const char* name) { return Buffer(fixture(k, name), DType::f32); };
    const Operands o{f32("in.gate"), f32("in.up"), f32("upstream")};
    check_outputs({f32("out"), f32("grad.gate"), f32("grad.up"), f32("out")}, o);
    for_each_backend([&](auto backend, Stream stream) { check_outputs(run(backend, stream, o), o); });
  }
}

}  // namespace
}  // namespace nanovlm::testing
