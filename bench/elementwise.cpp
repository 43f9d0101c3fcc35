// bench/elementwise [--dir cast,add,scale,sum,fill,unit_range,column_sum] ...
//
// What is left of elementwise arithmetic, over 128 rows of 576 a sample: cast between fp32 and bf16, the residual add,
// scale, sum, fill, a picture's bytes as numbers in [0, 1], and the sum over rows that a bias's gradient is. Least
// bytes: every entry read and written once.
#include "kernels/elementwise/elementwise.h"

#include <cmath>

#include "bench/common/kernel_bench.h"
#include "kernels/matmul/matmul.h"

using namespace nanovlm;
using namespace nanovlm::bench;

namespace {

constexpr int64_t kColumns = 576;
constexpr float kFactor = 0.75f;

Values rounded_to(const Values& x, DType dtype) {
  Values y;
  for (const double value : x)
    y.push_back(dtype == DType::bf16 ? static_cast<float>(bf16(static_cast<float>(value))) : static_cast<float>(value));
  return y;
}

// y = f(x, delta), entry by entry.
template <class Launch, class F>
Instance entries(const Tensor& x, const Tensor& delta, const Tensor& y, const Launch& launch, const F& f) {
  const auto run = [=] { on(x.device(), "elementwise", launch); };
  const auto outcomes = [=]() -> std::vector<Outcome> {
    const Values a = values_of(x), b = values_of(delta);
    Values exact;
    for (size_t i = 0; i < a.size(); ++i) exact.push_back(f(a[i], b[i]));
    return {{"y", values_of(y), exact, rounded_to(exact, y.dtype())}};
  };
  return {run, outcomes, {}};
}

// y = the sums over rows of x, which has y's number of columns.
template <class Launch>
Instance sums(const Tensor& x, const Tensor& y, const Launch& launch) {
  const auto run = [=] { on(x.device(), "sum", launch); };
  const auto outcomes = [=]() -> std::vector<Outcome> {
    const Values in = values_of(x);
    Values exact(static_cast<size_t>(y.numel())), rounded = exact;
    double terms = 0;
    for (size_t i = 0; i < in.size(); ++i) {
      double &e = exact[i % exact.size()], &r = rounded[i % exact.size()];
      e += in[i], r = static_cast<float>(r) + static_cast<float>(in[i]), terms = std::max(terms, std::abs(e));
    }
    return {{"y", values_of(y), exact, rounded, terms}};
  };
  return {run, outcomes, {}};
}

Instance unit_range_instance(int64_t n, const Device& device, uint64_t seed) {
  Random random(seed);
  std::vector<uint8_t> bytes;
  for (int64_t i = 0; i < n; ++i) bytes.push_back(static_cast<uint8_t>(random.below(256)));
  const Tensor x = from_host(bytes, {n}, device), y = empty({n}, DType::f32, device);
  const auto run = [=] {
    on(device, "unit_range", [&](auto backend, Stream stream) {
      kernels::unit_range(backend, {x.u8(), y.f32(), n}, stream);
    });
  };
  const auto outcomes = [=]() -> std::vector<Outcome> {
    Values exact;
    for (const uint8_t byte : bytes) exact.push_back(byte / 255.0);
    return {{"y", values_of(y), exact, rounded_to(exact, DType::f32)}};
  };
  return {run, outcomes, {}};
}

Instance instance_of(const std::string& operation, int64_t R, DType dtype, const Device& device, uint64_t seed) {
  const int64_t n = R * kColumns;
  if (operation == "unit_range") return unit_range_instance(n, device, seed);
  Random random(seed);
  const Tensor x = normal({n}, DType::f32, random, device), delta = normal({n}, dtype, random, device);
  const Tensor y = empty({n}, dtype, device), sum = empty_like(x), one = empty({1}, DType::f32, device);
  const Tensor columns = zeros({kColumns}, DType::f32, device);
  if (operation == "cast")
    return entries(
        x, delta, y,
        [=](auto backend, Stream stream) {
          kernels::cast(backend, {x.data(), y.data(), n, DType::f32, dtype}, stream);
        },
        [](double a, double) { return a; });
  if (operation == "add")
    return entries(
        x, delta, sum,
        [=](auto backend, Stream stream) {
          kernels::add(backend, {x.data(), delta.data(), sum.data(), n, DType::f32, dtype, DType::f32}, stream);
        },
        [](double a, double b) { return a + b; });
  if (operation == "scale")
    return entries(
        delta, delta, y,
        [=](auto backend, Stream stream) {
          kernels::scale(backend, {delta.data(), y.data(), n, kFactor, nullptr, dtype}, stream);
        },
        [](double a, double) { return a * kFactor; });
  if (operation == "fill")
    return entries(
        delta, delta, y,
        [=](auto backend, Stream stream) {
          kernels::fill(backend, {y.data(), n, kFactor, dtype}, stream);
        },
        [](double, double) { return kFactor; });
  if (operation == "sum")
    return sums(x, one, [=](auto backend, Stream stream) { kernels::sum(backend, {x.f32(), one.f32(), n}, stream); });
  return sums(delta, columns, [=](auto backend, Stream stream) {
    kernels::column_sum(backend, {delta.data(), columns.f32(), R, kColumns, dtype}, stream);
  });
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> operations = {"cast", "add", "scale", "sum", "fill", "unit_range", "column_sum"};
  KernelBench bench("elementwise", operations);
  return bench.run(argc, argv, [&](const Request& request) {
    std::vector<Case> cases;
    const int64_t B = request.batch_or(256, 12, 4), R = B * 128;
    for (const DType dtype : request.dtypes) {
      const int64_t size = size_of(dtype), bytes[] = {4 + size, 8 + size, 2 * size, 4, size, 5, size};
      for (size_t i = 0; i < operations.size(); ++i) {
        const bool of_one_dtype = operations[i] == "sum" || operations[i] == "unit_range";
        if (of_one_dtype && dtype != request.dtypes[0]) continue;
        Case c{operations[i],
               operations[i],
               dtype,
               {{"rows", R}, {"columns", kColumns}},
               0,
               static_cast<double>(R * kColumns * bytes[i])};
        c.full = 256.0 / static_cast<double>(B);
        c.sources = {i + 1 == operations.size() ? "kernels/matmul/matmul.cu" : "kernels/elementwise/elementwise.cu"};
        c.make = [=, device = request.device](uint64_t seed) {
          return instance_of(operations[i], R, dtype, device, seed);
        };
        cases.push_back(std::move(c));
      }
    }
    return cases;
  });
}
