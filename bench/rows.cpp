// bench/rows [--dir gather,scatter,bwd] ...
//
// Rows of 576 columns moved by an index: the embedding's lookup (gather), text and picture rows put in order (scatter),
// and the gradient of a lookup in which each row is named twice (bwd). fp32, as the model has them. Least bytes: rows
// read and written once; bwd dy, and dx read and written.
#include "kernels/rows/rows.h"

#include "bench/common/kernel_bench.h"
#include "tests/support/reference.h"

using namespace nanovlm;
using namespace nanovlm::bench;
namespace reference = nanovlm::testing::reference;

namespace {

constexpr int64_t kColumns = 576;

std::vector<int32_t> shuffled(int64_t n, uint64_t seed) {
  const std::vector<int64_t> order = permutation(n, seed);
  return {order.begin(), order.end()};
}

Instance move_instance(bool gather, int64_t R, const Device& device, uint64_t seed) {
  Random random(seed);
  const Tensor x = normal({R, kColumns}, DType::f32, random, device), y = zeros_like(x);
  const Tensor index = from_host(shuffled(R, seed), {R}, device);
  const auto run = [=] {
    on(device, "rows", [&](auto backend, Stream stream) {
      if (gather)
        kernels::gather_rows(backend, {x.f32(), index.i32(), y.f32(), R, kColumns, DType::f32, DType::f32}, stream);
      else
        kernels::scatter_rows(backend, {x.f32(), index.i32(), y.f32(), R, kColumns, DType::f32, DType::f32}, stream);
    });
  };
  const auto outcomes = [=]() -> std::vector<Outcome> {
    const Values from = values_of(x), at = values_of(index);
    const Values moved = gather ? reference::gather_rows(from, at, kColumns)
                                : reference::scatter_rows(from, at, kColumns, Values(from.size()));
    return {{"y", values_of(y), moved, moved}};
  };
  return {run, outcomes, {}};
}

// Row r of dy belongs to target r / 2.
Instance sum_instance(int64_t R, const Device& device, uint64_t seed) {
  Random random(seed);
  const int64_t U = R / 2;
  const Tensor dy = normal({R, kColumns}, DType::f32, random, device), dx = zeros({U, kColumns}, DType::f32, device);
  std::vector<int32_t> start, row;
  for (int64_t u = 0; u <= U; ++u) start.push_back(static_cast<int32_t>(2 * u));
  for (int64_t r = 0; r < R; ++r) row.push_back(static_cast<int32_t>(r));
  const std::vector<int32_t> targets = shuffled(U, seed);
  const Tensor target = from_host(targets, {U}, device), starts = from_host(start, {U + 1}, device),
               order = from_host(row, {R}, device);
  const auto run = [=] {
    on(device, "rows", [&](auto backend, Stream stream) {
      kernels::gather_rows_backward(
          backend, {dy.f32(), target.i32(), starts.i32(), order.i32(), dx.f32(), U, kColumns, DType::f32}, stream);
    });
  };
  const auto outcomes = [=]() -> std::vector<Outcome> {
    Values at;
    for (int64_t r = 0; r < R; ++r) at.push_back(targets[static_cast<size_t>(r / 2)]);
    const Values none(static_cast<size_t>(U * kColumns));
    return {{"dx", values_of(dx), reference::gather_rows_backward<double>(values_of(dy), at, kColumns, none),
             reference::gather_rows_backward<float>(values_of(dy), at, kColumns, none)}};
  };
  return {run, outcomes, {}};
}

}  // namespace

int main(int argc, char** argv) {
  KernelBench bench("rows", {"gather", "scatter", "bwd"});
  return bench.run(argc, argv, [](const Request& request) {
    std::vector<Case> cases;
    const int64_t B = request.batch_or(256, 12, 4), R = B * 128;
    const auto add = [&](const std::string& operation, const std::string& dir, auto make) {
      Case c{operation,  dir,
             DType::f32, {{"rows", R}, {"columns", kColumns}},
             0,          static_cast<double>(8 * R * kColumns)};  // bwd: R rows of dy, R / 2 of dx twice
      c.full = 256.0 / static_cast<double>(B), c.sources = {"kernels/rows/rows.cu"};
      c.make = [=, device = request.device](uint64_t seed) { return make(device, seed); };
      cases.push_back(std::move(c));
    };
    add("gather_rows", "gather", [=](const Device& d, uint64_t seed) { return move_instance(true, R, d, seed); });
    add("scatter_rows", "scatter", [=](const Device& d, uint64_t seed) { return move_instance(false, R, d, seed); });
    add("gather_rows_backward", "bwd", [=](const Device& d, uint64_t seed) { return sum_instance(R, d, seed); });
    return cases;
  });
}
