#include "kernels/matmul/matmul.h"

#include "tests/support/backends.h"
#include "tests/support/fixture.h"
#include "tests/support/product_reference.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

struct Case {
  int64_t M, N, K;
};

// One entry; less than a vector and one more; a few rows against many columns, as in decoding; one more than a tile;
// sums much longer than the result is large, as in a weight's gradient; sums of 63 terms, which oneDNN can't do.
constexpr Case kCases[] = {{1, 1, 1},      {3, 5, 7},     {1, 200, 64},  {2, 33, 31}, {7, 130, 100}, {8, 65, 576},
                           {31, 33, 65},   {65, 129, 33}, {17, 19, 700}, {4, 9, 225}, {1, 3, 225},   {65, 17, 63}};

// Whether what a case multiplies is stored transposed, what is added to the product, and what is stored.
struct Variant {
  bool transpose_a = false, transpose_b = false, bias = false, accumulate = false;
  DType in = DType::f32, out = DType::f32;
};

template <class F>
void for_each_variant(const F& f) {
  for (auto [in, out] : {std::pair{DType::f32, DType::f32}, {DType::bf16, DType::f32}, {DType::bf16, DType::bf16}})
    for (int bits = 0; bits < 16; ++bits) {
      const Variant v{bits % 2 != 0, bits / 2 % 2 != 0, bits / 4 % 2 != 0, bits / 8 != 0, in, out};
      if (v.accumulate && out != DType::f32) continue;
      INFO((v.transpose_a ? "a^T " : "a ")
           << (v.transpose_b ? "b^T" : "b") << (v.bias ? " + bias" : "") << (v.accumulate ? " + c" : "") << ", "
           << name_of(in) << " -> " << name_of(out));
      f(v);
    }
}

template <class Real>
Values product(const Case& s, const Variant& v, const Values& a, const Values& b, const Values& bias, const Values& c) {
  return reference::product<Real>({s.M, s.N, s.K, v.transpose_a, v.transpose_b, v.out}, a, b, v.bias ? bias : Values{},
                                  v.accumulate ? c : Values{});
}

TEST_CASE("matmul is as exact as the plain formula") {
  for (const Case& s : kCases)
    for_each_variant([&](const Variant& v) {
      INFO("M " << s.M << ", N " << s.N << ", K " << s.K);
      Random random(s.M * 10007 + s.N * 101 + s.K);
      Buffer a = random.normal(s.M * s.K, v.in), b = random.normal(s.K * s.N, v.in);
      Buffer bias = random.normal(s.N, v.out), before = random.normal(s.M * s.N, v.out);
      const auto formula = [&]<class Real>(Real) {
        return product<Real>(s, v, a.values(), b.values(), bias.values(), before.values());
      };
      const Values exact = formula(0.0), plain = formula(0.0f);

      for_each_backend([&](auto backend, Stream stream) {
        const auto run = [&] {
          Buffer c = v.accumulate ? before : Buffer(s.M * s.N, v.out);
          kernels::matmul(backend,
                          kernels::Matmul{a, b, c, v.bias ? static_cast<void*>(bias) : nullptr, s.M, s.N, s.K,
                                          v.transpose_a, v.transpose_b, v.accumulate, v.in, v.out},
                          stream);
          return c;
        };
        const Buffer c = run();
        check_close("c", c.values(), exact, plain);
        CHECK(run().same_bits(c));
      });
    });
}

TEST_CASE("a product over no terms is the bias, or leaves what was there") {
  for_each_variant([&](const Variant& v) {
    const Case s{3, 5, 0};
    Random random(1);
    Buffer a(0, v.in), b(0, v.in), bias = random.normal(s.N, v.out), before = random.normal(s.M * s.N, v.out);
    const Values exact = product<float>(s, v, {}, {}, bias.values(), before.values());
    for_each_backend([&](auto backend, Stream stream) {
      Buffer c = v.accumulate ? before : Buffer(s.M * s.N, v.out);
      kernels::matmul(backend,
                      kernels::Matmul{a, b, c, v.bias ? static_cast<void*>(bias) : nullptr, s.M, s.N, s.K,
                                      v.transpose_a, v.transpose_b, v.accumulate, v.in, v.out},
                      stream);
      CHECK(max_error(c.values(), exact) == 0);
    });
  });
}

TEST_CASE("products made together are those made one by one") {
  for (const DType in : kFloatDTypes)
    for (const int64_t M : {1, 3, 4, 6}) {  // one of a token's step, and more rows than stay together
      constexpr int64_t K = 70;
      const std::vector<int64_t> columns = {1, 130, 33, 200};
      INFO("M " << M << ", " << name_of(in));
      Random random(M);
      Buffer a = random.normal(M * K, in);
      std::vector<Buffer> b;
      for (const int64_t N : columns) b.push_back(random.normal(N * K, in));
      for_each_backend([&](auto backend, Stream stream) {
        std::vector<Buffer> together, alone;
        for (const int64_t N : columns) together.emplace_back(M * N, in), alone.emplace_back(M * N, in);
        std::vector<kernels::Matmul> products;
        for (size_t i = 0; i < columns.size(); ++i) {
          kernels::Matmul product{a, b[i], alone[i], nullptr, M, columns[i], K, false, true, false, in, in};
          kernels::matmul(backend, product, stream);
          product.c = together[i];
          products.push_back(product);
        }
        kernels::matmul_each(backend, products, stream);
        for (size_t i = 0; i < columns.size(); ++i) CHECK(max_error(together[i].values(), alone[i].values()) == 0);
      });
    }
}

TEST_CASE("column_sum is as exact as the plain formula") {
  for (auto [R, N] : {std::pair<int64_t, int64_t>{1, 1}, {0, 3}, {3, 31}, {33, 65}, {200, 130}, {1000, 64}, {2, 3000}})
    for (DType dtype : kFloatDTypes) {
      INFO("R " << R << ", N " << N << ", " << name_of(dtype));
      Random random(R + N);
      Buffer x = random.normal(R * N, dtype), before = random.normal(N, DType::f32);
      const auto formula = [&]<class Real>(Real) {
        Values y = before.values();
        const Values values = x.values();
        for (int64_t n = 0; n < N; ++n) {
          Real sum = 0;
          for (int64_t r = 0; r < R; ++r) sum += Real(values[r * N + n]);
          y[n] = Real(y[n]) + sum;
        }
        return y;
      };
      const Values exact = formula(0.0), plain = formula(0.0f);
      const auto run = [&](auto backend, Stream stream) {
        Buffer y = before;
        kernels::column_sum(backend, kernels::ColumnSum{x, y, R, N, dtype}, stream);
        return y;
      };
      for_each_backend([&](auto backend, Stream stream) {
        const Buffer y = run(backend, stream);
        check_close("y", y.values(), exact, plain);
        CHECK(run(backend, stream).same_bits(y));
      });
      for_each_backend([&](auto backend) {
        const Buffer y = run(backend, {});
        with_threads(1, [&] { CHECK(run(backend, {}).same_bits(y)); });
      });
    }
}

// y = x weight^T (+ bias), and its three gradients
TEST_CASE("matmul and column_sum agree with PyTorch's linear layer, which passes the same rule") {
  const OpFixture fixture("linear");
  for (int k = 0; k < 4; ++k) {
    CAPTURE(k);
    const Values x = fixture(k, "in.x"), weight = fixture(k, "in.weight"), bias = fixture(k, "in.bias");
    const Values dy = fixture(k, "upstream");
    const int64_t N = fixture.shape(k, "in.weight")[0], K = fixture.shape(k, "in.weight")[1], R = x.size() / K;
    const auto check_product = [&](const char* what, const char* theirs, const Case& s, Variant v, const Values& a,
                                   const Values& b, const Values& bias) {
      v.bias = !bias.empty();
      const Values exact = product<double>(s, v, a, b, bias, {}), plain = product<float>(s, v, a, b, bias, {});
      check_close(what, fixture(k, theirs), exact, plain);
      for_each_backend([&](auto backend, Stream stream) {
        Buffer left(a, v.in), right(b, v.in), added(bias, v.in), c(s.M * s.N, v.out);
        kernels::matmul(
            backend,
            kernels::Matmul{left, right, c, added, s.M, s.N, s.K, v.transpose_a, v.transpose_b, false, v.in, v.out},
            stream);
        check_close(what, c.values(), exact, plain);
      });
    };
    check_product("y", "out", {R, N, K}, {false, true}, x, weight, bias);
    check_product("dx", "grad.x", {R, K, N}, {false, false}, dy, weight, {});
    check_product("dweight", "grad.weight", {N, K, R}, {true, false}, dy, x, {});
    if (bias.empty()) continue;
    const Case ones{1, N, R};  // the sum of columns is a product with ones
    check_close("dbias", fixture(k, "grad.bias"), product<double>(ones, {}, Values(R, 1), dy, {}, {}),
                product<float>(ones, {}, Values(R, 1), dy, {}, {}));
  }
}

}  // namespace
}  // namespace nanovlm::testing
