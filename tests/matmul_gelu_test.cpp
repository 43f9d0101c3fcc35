// Products with GELU, or its gradient, behind them, and the operation that is made of them.
#include "kernels/matmul/matmul_gelu.h"

#include "engine/ops.h"
#include "engine/random.h"
#include "tests/support/backends.h"
#include "tests/support/devices.h"
#include "tests/support/messages.h"
#include "tests/support/product_reference.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

struct Case {
  int64_t M, N, K;
};
// One entry; sizes that divide nothing; multiples of 8 columns, which a GPU's library takes; no terms.
constexpr Case kCases[] = {{1, 1, 1},      {3, 5, 7},   {2, 33, 31},  {31, 24, 65}, {65, 136, 33},
                           {129, 40, 100}, {17, 8, 16}, {90, 64, 72}, {5, 8, 0}};

// What a weight's layer asks for: forward x w^T, backward dy w.
kernels::Matmul product_of(const Case& s, bool transpose_b, DType dtype) {
  return {nullptr, nullptr, nullptr, nullptr, s.M, s.N, s.K, false, transpose_b, false, dtype, dtype};
}

template <class F>
void for_each_case(const F& f) {
  for (const Case& s : kCases)
    for (const DType dtype : kFloatDTypes)
      for (const bool extra : {false, true}) {
        CAPTURE(s.M, s.N, s.K, name_of(dtype), extra);
        f(s, dtype, extra);
      }
}

template <class Real>
Values sums_of_columns(const Values& c, const Values& before, int64_t N, DType dtype) {
  Values result = before;
  for (int64_t n = 0; n < N; ++n) {
    Real sum = 0;
    for (size_t i = n; i < c.size(); i += N) sum += Real(c[i]);
    result[n] = Real(before[n]) + reference::stored(sum, dtype);
  }
  return result;
}

TEST_CASE("a product with GELU behind it is as exact as the plain formula") {
  for_each_case([](const Case& s, DType dtype, bool has_bias) {
    Random random(s.M + s.N);
    Buffer a = random.normal(s.M * s.K, dtype, 0.3), b = random.normal(s.N * s.K, dtype);
    Buffer bias = random.normal(has_bias ? s.N : 0, dtype);
    const auto sums = [&]<class Real>(Real) {
      return reference::product<Real>({s.M, s.N, s.K, false, true, dtype}, a.values(), b.values(), bias.values(), {});
    };
    const Values exact = sums(0.0), plain = sums(0.0f);
    for_each_backend([&](auto backend, Stream stream) {
      for (const bool keeps : {true, false}) {
        const auto run = [&] {
          std::pair<Buffer, Buffer> out{Buffer(s.M * s.N, dtype), Buffer(keeps ? s.M * s.N : 0, dtype)};
          kernels::MatmulGelu arguments{product_of(s, true, dtype), out.second};
          arguments.product.a = a, arguments.product.b = b, arguments.product.c = out.first;
          arguments.product.bias = bias;
          kernels::matmul_gelu(backend, arguments, stream);
          return out;
        };
        const auto [c, x] = run();
        if (keeps) check_close("x", x.values(), exact, plain);
        check_close("c", c.values(), reference::gelu<double>(exact, dtype), reference::gelu<float>(plain, dtype));
        const auto [again, x_again] = run();
        CHECK((again.same_bits(c) && x_again.same_bits(x)));
      }
    });
  });
}

TEST_CASE("a product through GELU's gradient, and the bias gradient, are as exact as the plain formula") {
  for_each_case([](const Case& s, DType dtype, bool has_bias) {
    Random random(s.M + s.N);
    Buffer a = random.normal(s.M * s.K, dtype, 0.3), b = random.normal(s.N * s.K, dtype);
    Buffer x = random.normal(s.M * s.N, dtype), before = random.normal(has_bias ? s.N : 0, DType::f32);
    const auto formula = [&]<class Real>(Real) {
      const Values sums =
          reference::product<Real>({s.M, s.N, s.K, false, false, dtype}, a.values(), b.values(), {}, {});
      return reference::gelu_backward<Real>(x.values(), sums, dtype);
    };
    const Values exact = formula(0.0), plain = formula(0.0f);
    for_each_backend([&](auto backend, Stream stream) {
      const auto run = [&] {
        std::pair<Buffer, Buffer> out{Buffer(s.M * s.N, dtype), before};
        kernels::MatmulGeluBackward arguments{product_of(s, false, dtype), x, out.second};
        arguments.product.a = a, arguments.product.b = b, arguments.product.c = out.first;
        kernels::matmul_gelu_backward(backend, arguments, stream);
        return out;
      };
      const auto [c, sums] = run();
      check_close("c", c.values(), exact, plain);
      const DType rounded = std::is_same_v<decltype(backend), Cuda> ? dtype : DType::f32;
      if (has_bias)
        check_close("bias gradient", sums.values(), sums_of_columns<double>(exact, before.values(), s.N, rounded),
                    sums_of_columns<float>(plain, before.values(), s.N, rounded));
      const auto [again, sums_again] = run();
      CHECK((again.same_bits(c) && sums_again.same_bits(sums)));
    });
  });
}

// The operation: its operands, and what the formula makes of them.
struct Mlp {
  int64_t R, K, N, M;
  DType dtype;
  Values x, weight1, bias1, weight2, bias2, dy;  // rounded to dtype

  Mlp(int64_t R, int64_t K, int64_t N, int64_t M, DType dtype) : R(R), K(K), N(N), M(M), dtype(dtype) {
    Random random(R + N);
    const auto normal = [&](int64_t n, double deviation) { return random.normal(n, dtype, deviation).values(); };
    x = normal(R * K, 1), weight1 = normal(N * K, 0.3), bias1 = normal(N, 1);
    weight2 = normal(M * N, 0.3), bias2 = normal(M, 1), dy = normal(R * M, 1);
  }

  // y, and the gradients of x, weight1, bias1, weight2, bias2.
  template <class Real>
  std::vector<Values> results(DType sums) const {
    const auto product = [&](int64_t rows, int64_t columns, int64_t terms, bool ta, bool tb, DType out, const Values& a,
                             const Values& b, const Values& bias) {
      return reference::product<Real>({rows, columns, terms, ta, tb, out}, a, b, bias, {});
    };
    const Values z = product(R, N, K, false, true, dtype, x, weight1, bias1), h = reference::gelu<Real>(z, dtype);
    const Values dh = product(R, N, M, false, false, dtype, dy, weight2, {});
    const Values dz = reference::gelu_backward<Real>(z, dh, dtype);
    return {
        product(R, M, N, false, true, dtype, h, weight2, bias2), product(R, K, N, false, false, dtype, dz, weight1, {}),
        product(N, K, R, true, false, DType::f32, dz, x, {}),    sums_of_columns<Real>(dz, Values(N), N, sums),
        product(M, N, R, true, false, DType::f32, dy, h, {}),    sums_of_columns<Real>(dy, Values(M), M, DType::f32)};
  }

  // The same by the device. Inputs whose bit of `needs` is not set are not asked for a gradient; theirs are empty.
  std::vector<Values> results(const Device& device, int needs, int passes = 1) const {
    const auto tensor = [&](const Values& values, Shape shape) {
      return from_host(std::vector<float>(values.begin(), values.end()), std::move(shape), device);
    };
    std::vector<Tensor> inputs = {tensor(x, {R, K}), tensor(weight1, {N, K}), tensor(bias1, {N}),
                                  tensor(weight2, {M, N}), tensor(bias2, {M})};
    for (size_t i = 0; i < inputs.size(); ++i)
      if (needs >> i & 1) inputs[i].set_requires_grad();
    const Tensor row = tensor(dy, {1, R * M});
    Tensor y;
    for (int pass = 0; pass < passes; ++pass) {
      y = mlp(cast(inputs[0], dtype), inputs[1], inputs[2], inputs[3], inputs[4], dtype);
      // With a loss of sum(dy y) the gradient of y is dy.
      const Tensor loss = linear(view(cast(y, DType::f32), {1, R * M}), row, {}, DType::f32);
      if (needs) backward(view(loss, {}));
    }
    const auto values = [](const Tensor& t) {
      if (!t.defined()) return Values{};
      const std::vector<float> numbers = to_host(t);
      return Values(numbers.begin(), numbers.end());
    };
    std::vector<Values> all = {values(y)};
    for (size_t i = 0; i < inputs.size(); ++i) all.push_back(needs >> i & 1 ? values(inputs[i].grad()) : Values{});
    return all;
  }
};

constexpr const char* kNames[] = {"y", "dx", "dweight1", "dbias1", "dweight2", "dbias2"};
constexpr int kAll = 31;

TEST_CASE("an MLP by epilogues and its gradients are as exact as the plain formula, whichever are asked for") {
  for (const DType dtype : kFloatDTypes)
    for (const Mlp& m : {Mlp(1, 1, 1, 1, dtype), Mlp(33, 31, 65, 17, dtype), Mlp(70, 24, 96, 40, dtype)}) {
      const std::vector<Values> exact = m.results<double>(DType::f32);
      for (const Device& device : devices({"mlp=epilogue"})) {
        const DType sums = device.kind() == DeviceKind::cuda ? dtype : DType::f32;
        const std::vector<Values> plain = m.results<float>(sums);
        for (int needs = 0; needs <= kAll; ++needs) {
          CAPTURE(device.name(), m.R, name_of(dtype), needs);
          const std::vector<Values> got = m.results(device, needs);
          for (size_t i = 0; i < got.size(); ++i) {
            if (i > 0 && !(needs >> (i - 1) & 1))
              CHECK(got[i].empty());
            else
              check_close(kNames[i], got[i], exact[i], plain[i]);
          }
        }
      }
    }
}

TEST_CASE("an MLP by epilogues adds to the gradients that are there") {
  for (const DType dtype : kFloatDTypes)
    for (const Device& device : devices({"mlp=epilogue"})) {
      const Mlp m(33, 31, 64, 17, dtype);
      const std::vector<Values> once = m.results(device, kAll), twice = m.results(device, kAll, 2);
      const std::vector<Values> exact = m.results<double>(DType::f32), plain = m.results<float>(dtype);
      for (size_t i = 1; i < once.size(); ++i) {
        Values doubled = exact[i], rounded = plain[i];
        for (double& value : doubled) value *= 2;
        for (double& value : rounded) value *= 2;
        check_close(kNames[i], twice[i], doubled, rounded);
      }
    }
}

#if defined(NANOVLM_SIMT_KERNELS)
TEST_CASE("where GELU is a kernel of its own, an MLP by epilogues has the bits of the separate one") {
  const Device separate = Device::open("simt"), epilogue = Device::open("simt", {"mlp=epilogue"});
  for (const DType dtype : kFloatDTypes) {
    const Mlp m(33, 31, 65, 17, dtype);
    CHECK(m.results(separate, kAll) == m.results(epilogue, kAll));
  }
  CHECK(message_of([&] {
          const auto zero = [&](Shape shape) { return zeros(std::move(shape), DType::f32, epilogue); };
          mlp(zero({2, 3}), zero({5, 3}), zero({4}), zero({3, 5}), zero({3}), DType::f32);
        }) == "mlp: bias is [4], but weight is [5, 3]");
}
#endif

}  // namespace
}  // namespace nanovlm::testing
