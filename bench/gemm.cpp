// bench/gemm [--layers vit.qkv,...] [--dir fwd,dx,dw] [--kernel matmul=gemm_hopper] ...
//
// Our tensor-core products (kernels/gemm), `gemm` by default, at the shapes of the 222M model's linear layers: forward
// x w^T, the input's gradient dy w, the weight's dy^T x. x, dy and w are bf16; y and dx are, dw is fp32. Least bytes:
// both operands read once, the result written once. cublaslt, on a GPU: the product that the model calls. On a CPU
// there is only that, under `ours`.
#include "kernels/gemm/gemm.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "bench/common/kernel_bench.h"
#include "bench/common/product_outcome.h"

using namespace nanovlm;
using namespace nanovlm::bench;

namespace {

struct Layer {
  std::string name;
  int64_t rows;     // a sample
  int64_t out, in;  // features
};
const std::vector<Layer> kLayers = {
    {"vit.qkv", 196, 2304, 768}, {"vit.out", 196, 768, 768},     {"vit.fc1", 196, 3072, 768},
    {"vit.fc2", 196, 768, 3072}, {"mp.proj", 49, 576, 3072},     {"lm.qkv", 128, 960, 576},
    {"lm.out", 128, 576, 576},   {"lm.gate_up", 128, 3072, 576}, {"lm.down", 128, 576, 1536},
    {"head", 10, 49152, 576}};  // about ten rows of a sample have a label

kernels::Matmul product_of(const Layer& layer, const std::string& dir, int64_t R) {
  const int64_t N = layer.out, K = layer.in;
  if (dir == "fwd") return {nullptr, nullptr, nullptr, nullptr, R, N, K, false, true, false, DType::bf16, DType::bf16};
  if (dir == "dx") return {nullptr, nullptr, nullptr, nullptr, R, K, N, false, false, false, DType::bf16, DType::bf16};
  return {nullptr, nullptr, nullptr, nullptr, N, K, R, true, false, false, DType::bf16, DType::f32};
}

Instance instance_of(kernels::Matmul p, const Device& device, uint64_t seed) {
  Random random(seed);
  const auto matrix = [&](int64_t rows, int64_t columns) { return normal({rows, columns}, p.in, random, device); };
  const Tensor a = p.transpose_a ? matrix(p.K, p.M) : matrix(p.M, p.K);
  const Tensor b = p.transpose_b ? matrix(p.N, p.K) : matrix(p.K, p.N);
  const Tensor c = empty({p.M, p.N}, p.out, device);
  p.a = a.data(), p.b = b.data(), p.c = c.data();
  const auto ours = [=] {
    const char* chosen = a.device().context().kernels.of("matmul");
    on(a.device(), "gemm",
       [&](auto backend, Stream stream) { kernels::chosen_matmul(backend, chosen ? chosen : "gemm", p, stream); });
  };
  const auto library = [=] {
    on(a.device(), "matmul", [&](auto backend, Stream stream) { kernels::matmul(backend, p, stream); });
  };
  Instance instance{ours,
                    [=]() -> std::vector<Outcome> {
                      return {product_outcome("c", p, values_of(a), values_of(b), values_of(c), a.device())};
                    },
                    {}};
  if (device.kind() != DeviceKind::cpu)
    instance.baselines.push_back({device.kind() == DeviceKind::cuda ? "cublaslt" : "library", library});
  return instance;
}

Case case_of(const Layer& layer, const std::string& dir, const Request& request) {
  const int64_t batch = request.batch_or(256, 12, 1);
  const kernels::Matmul p = product_of(layer, dir, batch * layer.rows);
  const double M = static_cast<double>(p.M), N = static_cast<double>(p.N), K = static_cast<double>(p.K);
  Case c{layer.name,    dir,
         DType::bf16,   {{"M", p.M}, {"N", p.N}, {"K", p.K}},
         2 * M * N * K, 2 * (M * K + K * N) + static_cast<double>(size_of(p.out)) * M * N};
  c.full = 256.0 / static_cast<double>(batch), c.sources = {"kernels/gemm/gemm.cu", "kernels/gemm/gemm_hopper.cu"};
  c.make = [p, device = request.device](uint64_t seed) { return instance_of(p, device, seed); };
  return c;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> wanted;
  KernelBench bench("gemm", {"fwd", "dx", "dw"});
  std::vector<std::string> names;
  for (const Layer& layer : kLayers) names.push_back(layer.name);
  bench.app()
      .add_option("--layers", wanted, "some of the layers; on simt lm.out by default, else all")
      ->delimiter(',')
      ->check(CLI::IsMember(names));
  return bench.run(argc, argv, [&](const Request& request) {
    if (wanted.empty() && request.device.kind() == DeviceKind::simt) wanted = {"lm.out"};
    std::vector<Case> cases;
    for (const Layer& layer : kLayers)
      if (wanted.empty() || std::find(wanted.begin(), wanted.end(), layer.name) != wanted.end())
        for (const std::string& dir : request.directions) cases.push_back(case_of(layer, dir, request));
    return cases;
  });
}
