// bench/matmul [--shape M,N,K] [--dtype f32,bf16]
//
// The matrix products of a training step of nanoVLM's 222M model, batch 12: each linear layer forward (x W^T), its
// input's gradient (dy W) and its weight's (dy^T x), on the cpu device. The largest rate seen in the run is printed
// below the table.
#include <CLI/CLI.hpp>
#include <cmath>

#include "bench/common/harness.h"
#include "engine/ops.h"
#include "engine/random.h"
#include "kernels/matmul/matmul.h"

using namespace nanovlm;
using namespace nanovlm::bench;

namespace {

struct Product {
  std::string name;
  int64_t M, N, K;
  bool transpose_a, transpose_b;
  DType in, out;
};

// Forward, dX and dW of a linear layer with R rows.
std::vector<Product> layer(const std::string& name, int64_t R, int64_t N, int64_t K, DType dtype) {
  return {{name + " y", R, N, K, false, true, dtype, dtype},
          {name + " dx", R, K, N, false, false, dtype, dtype},
          {name + " dw", N, K, R, true, false, dtype, DType::f32}};
}

void check_entry(const Product& p, const Tensor& a, const Tensor& b, const Tensor& c) {
  const std::vector<float> x = to_host(a), y = to_host(b), z = to_host(c);
  for (const auto& [m, n] : {std::pair<int64_t, int64_t>{0, 0}, {p.M - 1, p.N - 1}, {p.M / 2, p.N / 3}}) {
    double exact = 0, size = 0;
    for (int64_t k = 0; k < p.K; ++k) {
      const double u = x[static_cast<size_t>(p.transpose_a ? k * p.M + m : m * p.K + k)];
      const double v = y[static_cast<size_t>(p.transpose_b ? n * p.K + k : k * p.N + n)];
      exact += u * v, size += u * v * u * v;
    }
    const double allowed = (p.out == DType::bf16 ? 0x1p-7 : 1e-4) * (std::abs(exact) + std::sqrt(size));
    require(std::abs(exact - z[static_cast<size_t>(m * p.N + n)]) <= allowed, text(p.name, " at [", m, ", ", n, "]"));
  }
}

double run(const Product& p, Report& report) {
  const Device device = Device::open("cpu");
  Random random(1);
  const auto normal = [&](int64_t rows, int64_t columns) {
    return cast(random_normal({rows, columns}, 1, random, device), p.in);
  };
  const Tensor a = p.transpose_a ? normal(p.K, p.M) : normal(p.M, p.K),
               b = p.transpose_b ? normal(p.N, p.K) : normal(p.K, p.N);
  const Tensor c = empty({p.M, p.N}, p.out, device);
  const auto product = [&] {
    on(device, "matmul", [&](auto backend, Stream stream) {
      kernels::matmul(
          backend,
          {a.data(), b.data(), c.data(), nullptr, p.M, p.N, p.K, p.transpose_a, p.transpose_b, false, p.in, p.out},
          stream);
    });
  };
  product();
  check_entry(p, a, b, c);
  const Timing t = time(product, {.min_seconds = 0.2});
  const double rate =
      2.0 * static_cast<double>(p.M) * static_cast<double>(p.N) * static_cast<double>(p.K) / t.median * 1e-9;
  report.add({{"product", value(p.name)},
              {"M", value(p.M)},
              {"N", value(p.N)},
              {"K", value(p.K)},
              {"dtype", value(std::string(name_of(p.in)))},
              {"ms p50", milliseconds(t.median)},
              {"noise %", value(100 * t.noise(), 0)},
              {"GFLOP/s", value(rate, 1)}});
  return rate;
}

}  // namespace

int main(int argc, char** argv) try {
  std::vector<std::string> dtypes = {"f32", "bf16"};
  std::vector<int64_t> shape;
  Report report("matmul");
  report.app()
      .add_option("--shape", shape, "M,N,K of one product instead")
      ->delimiter(',')
      ->expected(3)
      ->check(CLI::PositiveNumber);
  report.app().add_option("--dtype", dtypes, "f32, bf16")->delimiter(',')->check(CLI::IsMember({"f32", "bf16"}));
  int exit_code = 0;
  if (!report.parse(argc, argv, exit_code)) return exit_code;
  for (const std::string& name : dtypes) {
    const DType dtype = name == "f32" ? DType::f32 : DType::bf16;
    std::vector<Product> products;
    const auto add_layer = [&](const std::string& layer_name, int64_t R, int64_t N, int64_t K) {
      for (const Product& p : layer(layer_name, R, N, K, dtype)) products.push_back(p);
    };
    if (!shape.empty()) {
      add_layer("shape", shape[0], shape[1], shape[2]);
    } else {
      add_layer("vit.qkv", 2352, 2304, 768), add_layer("vit.out", 2352, 768, 768),
          add_layer("vit.fc1", 2352, 3072, 768);
      add_layer("vit.fc2", 2352, 768, 3072), add_layer("mp.proj", 588, 576, 3072), add_layer("lm.q", 1095, 576, 576);
      add_layer("lm.kv", 1095, 192, 576), add_layer("lm.gate", 1095, 1536, 576), add_layer("lm.down", 1095, 576, 1536);
      add_layer("head", 129, 49152, 576), add_layer("decode", 1, 1536, 576);
    }
    double best = 0;
    for (const Product& p : products) best = std::max(best, run(p, report));
    report.note(text(name, ": at most ", best, " GFLOP/s in this run"));
  }
  return report.finish();
} catch (const std::exception&) {
  return failed("matmul", argc, argv);
}
