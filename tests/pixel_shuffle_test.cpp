#include "kernels/pixel_shuffle/pixel_shuffle.h"

#include "engine/ops.h"
#include "engine/random.h"
#include "kernels/pixel_shuffle/projector.h"
#include "tests/support/backends.h"
#include "tests/support/fixture.h"
#include "tests/support/messages.h"
#include "tests/support/product_reference.h"
#include "tests/support/reference.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

struct Case {
  int64_t B, C;
  int n, f;
};
constexpr Case kCases[] = {{1, 1, 1, 1}, {2, 31, 4, 2}, {1, 33, 6, 3}, {3, 7, 5, 5}, {2, 768, 14, 2}};

template <class Backend>
Buffer run(Backend backend, Stream stream, Buffer x, Case shape, bool inverse) {
  Buffer y(shape.B * shape.n * shape.n * shape.C, x.dtype());
  kernels::pixel_shuffle(backend, kernels::PixelShuffle{x, y, shape.B, shape.C, shape.n, shape.f, inverse, x.dtype()},
                         stream);
  return y;
}

TEST_CASE("pixel shuffle and its inverse move every entry to its place") {
  for_each_backend([](auto backend, Stream stream) {
    for (DType dtype : kFloatDTypes)
      for (Case shape : kCases)
        for (bool inverse : {false, true}) {
          CAPTURE(name_of(dtype), shape.B, shape.C, shape.n, shape.f, inverse);
          const Buffer x = Random(shape.C).normal(shape.B * shape.n * shape.n * shape.C, dtype);
          const Buffer y = run(backend, stream, x, shape, inverse);
          const Values expected = reference::pixel_shuffle(x.values(), shape.B, shape.C, shape.n, shape.f, inverse);
          CHECK(max_error(y.values(), expected) == 0);
          CHECK(run(backend, stream, y, shape, !inverse).same_bits(x));
          with_threads(1, [&] { CHECK(run(backend, stream, x, shape, inverse).same_bits(y)); });
        }
  });
}

TEST_CASE("pixel shuffle agrees with nanoVLM's") {
  const OpFixture fixture("pixel_shuffle");
  constexpr Case kSettings[] = {{2, 6, 4, 2}, {1, 3, 2, 2}, {1, 5, 14, 2}, {2, 4, 6, 3}};
  for (int k = 0; k < 4; ++k) {
    CAPTURE(k);
    const Buffer x(fixture(k, "in.x"), DType::f32), dy(fixture(k, "upstream"), DType::f32);
    for_each_backend([&](auto backend, Stream stream) {
      CHECK(max_error(run(backend, stream, x, kSettings[k], false).values(), fixture(k, "out")) == 0);
      CHECK(max_error(run(backend, stream, dy, kSettings[k], true).values(), fixture(k, "grad.x")) == 0);
    });
  }
}

// The fused projector: operands, and its results by plain products around the reference's shuffle.
struct Projection {
  Case shape;
  int64_t N;

  int64_t K() const { return shape.C * shape.f * shape.f; }
  int64_t R() const { return shape.B * shape.n * shape.n / (shape.f * shape.f); }
  int64_t entries() const { return R() * K(); }  // of x

  Values shuffled(const Values& x, bool inverse = false) const {
    return reference::pixel_shuffle(x, shape.B, shape.C, shape.n, shape.f, inverse);
  }
  template <class Real>
  Values y(const Values& x, const Values& weight) const {
    return reference::product<Real>({R(), N, K(), false, true, DType::bf16}, shuffled(x), weight, {}, {});
  }
  template <class Real>
  Values dx(const Values& weight, const Values& dy, DType dtype) const {
    return shuffled(reference::product<Real>({R(), K(), N, false, false, dtype}, dy, weight, {}, {}), true);
  }
  template <class Real>
  Values dweight(const Values& x, const Values& dy, const Values& before) const {
    return reference::product<Real>({N, K(), R(), true, false, DType::f32}, dy, shuffled(x), {}, before);
  }
};
// K of 384 is 6 stages of the pipeline, R of 200 is 4; runs of 16-byte chunks and not, several tiles each way.
const std::vector<Projection> kProjections = {
    {{1, 1, 1, 1}, 1},   {{2, 31, 4, 2}, 33}, {{1, 8, 6, 3}, 40},
    {{3, 7, 5, 5}, 130}, {{2, 96, 4, 2}, 72}, {{2, 4, 20, 2}, 200},
};

template <class Backend>
void check_projection(Backend backend, Stream stream, const Projection& p) {
  CAPTURE(p.shape.B, p.shape.C, p.shape.n, p.shape.f, p.N);
  Random random(p.N);
  Buffer x = random.normal(p.entries(), DType::bf16), weight = random.normal(p.N * p.K(), DType::bf16);
  Buffer dy = random.normal(p.R() * p.N, DType::bf16), before = random.normal(p.N * p.K(), DType::f32);
  const auto [B, C, n, f] = p.shape;
  Buffer y(p.R() * p.N, DType::bf16);
  kernels::projector(backend, {x, weight, y, B, C, p.N, n, f}, stream);
  check_close("y", y.values(), p.y<double>(x.values(), weight.values()), p.y<float>(x.values(), weight.values()));

  for (const bool accumulate : {false, true}) {
    CAPTURE(accumulate);
    const DType dtype = accumulate ? DType::f32 : DType::bf16;
    Buffer dx(p.entries(), dtype), dweight = before;
    kernels::projector_backward(backend, {x, weight, dy, dx, dweight, accumulate, B, C, p.N, n, f, dtype}, stream);
    const Values start = accumulate ? before.values() : Values{};
    check_close("dx", dx.values(), p.dx<double>(weight.values(), dy.values(), dtype),
                p.dx<float>(weight.values(), dy.values(), dtype));
    check_close("dweight", dweight.values(), p.dweight<double>(x.values(), dy.values(), start),
                p.dweight<float>(x.values(), dy.values(), start));
  }
}

TEST_CASE("the fused projector is a product with shuffled rows, and so are its gradients") {
  for_each_backend([](auto backend, Stream stream) {
    if constexpr (kernels::kHasGemm<decltype(backend)>)
      for (const Projection& p : kProjections) check_projection(backend, stream, p);
  });
}

#if defined(NANOVLM_SIMT_KERNELS)
TEST_CASE("the fused projector refuses more than it can count") {
  simt::Executor executor;
  const kernels::Projector huge{nullptr, nullptr, nullptr, int64_t{1} << 20, 64, 8, 8, 2};
  CHECK_THROWS_WITH(kernels::projector(Simt{}, huge, executor.stream()), contains("4294967296 entries"));
}

TEST_CASE("a run that chooses the fused projector gets the bits of the separate one") {
  const auto results = [](const std::string& kernel, DType dtype, DType x_dtype) {
    const Device device = Device::open("simt", {"projector=" + kernel});
    nanovlm::Random random(3);
    const Tensor start = random_normal({2 * 16, 24}, 1, random, device).set_requires_grad();
    const Tensor weight = random_normal({40, 96}, 1, random, device).set_requires_grad();
    const Tensor y = projector(cast(start, x_dtype), 2, 2, weight, dtype);
    const std::vector<int32_t> targets(8, 1);
    backward(linear_cross_entropy(y, random_normal({5, 40}, 1, random, device), targets, dtype));
    return std::vector{to_host(cast(y, DType::f32)), to_host(start.grad()), to_host(weight.grad())};
  };
  for (const DType x_dtype : kFloatDTypes) {
    const auto fused = results("fused", DType::bf16, x_dtype), separate = results("separate", DType::bf16, x_dtype);
    for (size_t i = 0; i < fused.size(); ++i) CHECK((fused[i] == separate[i] && !fused[i].empty()));
  }
  CHECK_THROWS_WITH(results("fused", DType::f32, DType::f32), contains("projector") && contains("bf16"));
}
#endif

}  // namespace
}  // namespace nanovlm::testing
