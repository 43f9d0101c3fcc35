#include "kernels/gemm/gemm.h"

#include "engine/ops.h"
#include "tests/support/backends.h"
#include "tests/support/product_reference.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

// Whether what is multiplied is stored transposed, what is added to the product, and what is stored.
struct Case {
  int64_t M, N, K;
  bool transpose_a, transpose_b, bias = false, accumulate = false;
  DType out = DType::f32;
};

struct Operands {
  Values a, b, bias, before;

  explicit Operands(const Case& s) {
    Random random(s.M * 10007 + s.N * 101 + s.K);
    a = random.normal(s.M * s.K, DType::bf16).values(), b = random.normal(s.K * s.N, DType::bf16).values();
    bias = random.normal(s.N, s.out).values(), before = random.normal(s.M * s.N, s.out).values();
  }

  template <class Real>
  Values product(const Case& s) const {
    return reference::product<Real>({s.M, s.N, s.K, s.transpose_a, s.transpose_b, s.out}, a, b,
                                    s.bias ? bias : Values{}, s.accumulate ? before : Values{});
  }
};

enum class Kernel { mma, hopper };

template <class Backend>
void multiply(Backend backend, Stream stream, Kernel kernel, const kernels::Matmul& product) {
  kernel == Kernel::mma ? kernels::gemm(backend, product, stream) : kernels::gemm_hopper(backend, product, stream);
}

// What a kernel makes of the operands, which lie `shift` entries past a multiple of 64 bytes.
template <class Backend>
Values run(Backend backend, Stream stream, Kernel kernel, const Case& s, const Operands& o, int64_t shift) {
  const auto shifted = [&](const Values& values) {
    Values result(static_cast<size_t>(shift), 0.0);
    result.insert(result.end(), values.begin(), values.end());
    return Buffer(result, DType::bf16);
  };
  Buffer a = shifted(o.a), b = shifted(o.b), bias(s.bias ? o.bias : Values{}, s.out);
  Buffer c = s.accumulate ? Buffer(o.before, s.out) : Buffer(s.M * s.N, s.out);
  multiply(backend, stream, kernel,
           {static_cast<bf16*>(a) + shift, static_cast<bf16*>(b) + shift, c, bias, s.M, s.N, s.K, s.transpose_a,
            s.transpose_b, s.accumulate, DType::bf16, s.out});
  return c.values();
}

std::string name_of(const Case& s) {
  return std::to_string(s.M) + " x " + std::to_string(s.N) + " x " + std::to_string(s.K) +
         (s.transpose_a ? ", a^T " : ", a ") + (s.transpose_b ? "b^T" : "b") + (s.bias ? " + bias" : "") +
         (s.accumulate ? " + c" : "") + " -> " + nanovlm::name_of(s.out);
}

// Whether this machine can run a kernel on this backend.
template <class Backend>
bool runs(Backend, [[maybe_unused]] Kernel kernel) {
#if defined(NANOVLM_CUDA_KERNELS)
  if (std::is_same_v<Backend, Cuda> && kernel == Kernel::hopper) return gpu_is_hopper();
#endif
  return kernels::kHasGemm<Backend>;
}

void check_case(const Case& s, Kernel kernel = Kernel::mma, int64_t shift = 0) {
  INFO(name_of(s));
  const Operands operands(s);
  const Values exact = operands.product<double>(s), plain = operands.product<float>(s);
  Values first;  // on simt all orders give the same bits
  for_each_backend([&](auto backend, Stream stream) {
    if constexpr (kernels::kHasGemm<decltype(backend)>) {
      if (!runs(backend, kernel)) return;
      const Values c = run(backend, stream, kernel, s, operands, shift);
      check_close("c", c, exact, plain);
      if (std::is_same_v<decltype(backend), Cuda> || first.empty()) first = c;
      CHECK(max_error(c, first) == 0);
      if (std::is_same_v<decltype(backend), Cuda>)
        CHECK(max_error(run(backend, stream, kernel, s, operands, shift), c) == 0);
    }
  });
}

TEST_CASE("gemm of whole tiles, rows of whole chunks") {
  // 3 stages and 7: with fewer a fault of the pipeline is none yet. The products of a linear layer: y, dx, dweight.
  check_case({128, 128, 192, false, true, true, false, DType::bf16});
  check_case({64, 136, 448, false, false});
  check_case({136, 72, 256, true, false, false, true});
  check_case({40, 48, 200, true, true});
}

TEST_CASE("gemm of any size and alignment") {
  check_case({1, 1, 1, false, true});
  check_case({129, 33, 257, false, true, true});
  check_case({31, 131, 193, false, false, false, false, DType::bf16});
  check_case({130, 34, 195, true, false, true, true});
  check_case({33, 31, 130, true, true, true, false, DType::bf16});
  check_case({24, 40, 200, false, true}, Kernel::mma, 1);
}

TEST_CASE("gemm covers tiles in bands without leaving one out") { check_case({1153, 257, 8, false, true}); }

TEST_CASE("gemm over no terms is the bias, or leaves what was there") {
  check_case({3, 5, 0, false, true, true});
  check_case({3, 5, 0, true, false, false, true});
}

TEST_CASE("gemm_hopper of any size, rows of whole chunks") {
  // 4 stages and more: with fewer a fault of the pipeline is none yet.
  check_case({128, 128, 256, false, true, true, false, DType::bf16}, Kernel::hopper);
  check_case({64, 136, 448, false, false}, Kernel::hopper);
  check_case({136, 72, 256, true, false, false, true}, Kernel::hopper);
  check_case({40, 48, 264, true, true, true}, Kernel::hopper);
  check_case({1, 1, 8, false, true}, Kernel::hopper);
  check_case({131, 33, 328, false, true}, Kernel::hopper);
  check_case({3, 8, 0, true, false, true}, Kernel::hopper);
}

#if defined(NANOVLM_SIMT_KERNELS)
// On the executor's own memory, whose bounds are exact in the instrumented build.
void check_bounds(const Case& s, Kernel kernel) {
  INFO(name_of(s));
  simt::Executor executor;
  SimtArray<bf16> a(executor, std::vector<bf16>(static_cast<size_t>(s.M * s.K), bf16(1.0f)));
  SimtArray<bf16> b(executor, std::vector<bf16>(static_cast<size_t>(s.K * s.N), bf16(1.0f)));
  SimtArray<float> c(executor, static_cast<size_t>(s.M * s.N));
  multiply(Simt{}, executor.stream(), kernel,
           {a.data(), b.data(), c.data(), nullptr, s.M, s.N, s.K, s.transpose_a, s.transpose_b, false, DType::bf16,
            DType::f32});
  CHECK(c.values() == std::vector<float>(static_cast<size_t>(s.M * s.N), static_cast<float>(s.K)));
}

TEST_CASE("gemm and gemm_hopper touch nothing outside their operands") {
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true}) {
      check_bounds({33, 35, 131, transpose_a, transpose_b}, Kernel::mma);
      check_bounds({40, 136, 200, transpose_a, transpose_b}, Kernel::mma);
      check_bounds({40, 136, 200, transpose_a, transpose_b}, Kernel::hopper);
    }
}

TEST_CASE("gemm and gemm_hopper name what they support") {
  simt::Executor executor;
  alignas(16) bf16 x[256];
  const auto call = [&](Kernel kernel, const bf16* from, int64_t K, DType in, DType out, bool accumulate) {
    multiply(Simt{}, executor.stream(), kernel, {from, from, x, nullptr, 8, 8, K, false, true, accumulate, in, out});
  };
  for (const Kernel kernel : {Kernel::mma, Kernel::hopper}) {
    CHECK_THROWS_WITH(call(kernel, x, 8, DType::f32, DType::f32, false),
                      contains("operands are f32") && contains("only bf16"));
    CHECK_THROWS_WITH(call(kernel, x, 8, DType::bf16, DType::bf16, true), contains("only f32"));
  }
  CHECK_THROWS_WITH(call(Kernel::hopper, x, 12, DType::bf16, DType::bf16, false),
                    contains("have 12 entries") && contains("multiple of 8"));
  CHECK_THROWS_WITH(call(Kernel::hopper, x + 1, 16, DType::bf16, DType::bf16, false), contains("do not start"));
}

TEST_CASE("a run that chooses a product's kernel gets it, with the bits of the simt device's own") {
  Random random(1);
  const auto floats = [&](int64_t n) {
    const Values values = random.normal(n, DType::f32).values();
    return std::vector<float>(values.begin(), values.end());
  };
  const std::vector<float> x = floats(20 * 72), weight = floats(40 * 72);
  const auto product = [&](const std::string& kernel) {
    const Device device = Device::open("simt", {"matmul=" + kernel});
    const Tensor y =
        linear(from_host(x, {20, 72}, device), from_host(weight, {40, 72}, device), {}, DType::bf16, DType::f32);
    std::string launched;
    for (const simt::KernelReport& report : device.context().executor->reports()) launched += report.kernel + " ";
    CHECK((launched.find(kernel + " ") != std::string::npos) == (kernel != "library"));
    return to_host(y);
  };
  const std::vector<float> library = product("library");
  CHECK(product("gemm") == library);
  CHECK(product("gemm_hopper") == library);
}

#if defined(NANOVLM_SIMT_INSTRUMENTED)
TEST_CASE("gemm asks for whole sectors and meets no bank conflicts") {
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true}) {
      const Case s{128, 128, 256, transpose_a, transpose_b, true, true};
      INFO(name_of(s));
      simt::Executor executor;
      run(Simt{}, executor.stream(), Kernel::mma, s, Operands(s), 0);
      const simt::KernelReport report = executor.reports().at(0);
      CHECK(report.mma_flops == 2 * s.M * s.N * s.K);
      CHECK(report.sectors <= 1.01 * report.ideal_sectors);
      CHECK(report.wavefronts <= 1.01 * report.ideal_wavefronts);
    }
}
#endif
#endif

}  // namespace
}  // namespace nanovlm::testing
