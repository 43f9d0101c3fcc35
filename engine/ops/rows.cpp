#include "kernels/rows/rows.h"

#include <algorithm>
#include <numeric>

#include "engine/ops.h"

namespace nanovlm {
namespace {

Tensor index_tensor(const std::vector<int32_t>& index, const Device& device) {
  return from_host(index, {static_cast<int64_t>(index.size())}, device);
}

void check_rows(const char* op, const std::vector<int32_t>& rows, int64_t limit) {
  for (size_t i = 0; i < rows.size(); ++i)
    check(rows[i] >= 0 && rows[i] < limit, op, ": index ", i, " is ", rows[i], ", but there are ", limit, " rows");
}

Tensor gathered(const Tensor& x, const Tensor& index, DType dtype) {
  const int64_t R = index.numel(), C = x.size(1);
  Tensor y = empty({R, C}, dtype, x.device());
  on(x.device(), "gather_rows", [&](auto backend, Stream stream) {
    kernels::gather_rows(backend, {x.data(), index.i32(), y.data(), R, C, x.dtype(), dtype}, stream);
  });
  return y;
}

Tensor gathered(const Tensor& x, const Tensor& index) { return gathered(x, index, x.dtype()); }

void scatter(const Tensor& x, const Tensor& index, const Tensor& y) {
  on(x.device(), "scatter_rows", [&](auto backend, Stream stream) {
    kernels::scatter_rows(backend, {x.data(), index.i32(), y.data(), index.numel(), x.size(1), x.dtype(), y.dtype()},
                          stream);
  });
}

// The places of each distinct id, in the order they occur.
struct ById {
  std::vector<int32_t> target, starts, order;
  explicit ById(const std::vector<int32_t>& ids) : order(ids.size()) {
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return ids[a] < ids[b]; });
    for (size_t i = 0; i < order.size(); ++i)
      if (i == 0 || ids[order[i]] != target.back()) {
        target.push_back(ids[order[i]]);
        starts.push_back(static_cast<int32_t>(i));
      }
    starts.push_back(static_cast<int32_t>(order.size()));
  }
};

}  // namespace

Tensor embedding(const Tensor& weight, const std::vector<int32_t>& ids) {
  check(weight.rank() == 2, "embedding: weight is ", weight.shape());
  check_rows("embedding", ids, weight.size(0));
  const Device device = weight.device();
  Tensor y = gathered(weight.detach(), index_tensor(ids, device), DType::f32);
  return record("embedding", y, {weight},
                [weight, shape = weight.shape(), ids, device](const Tensor& dy, const Needs&) -> Gradients {
                  const ById by_id(ids);
                  const Tensor target = index_tensor(by_id.target, device), starts = index_tensor(by_id.starts, device),
                               order = index_tensor(by_id.order, device);
                  const MemoryScope scope(device, MemoryClass::gradient);
                  Tensor dweight = gradient_so_far(weight);
                  if (!dweight.defined()) dweight = zeros(shape, DType::f32, device);
                  on(device, "gather_rows_backward", [&](auto backend, Stream stream) {
                    kernels::gather_rows_backward(backend,
                                                  {dy.data(), target.i32(), starts.i32(), order.i32(), dweight.f32(),
                                                   target.numel(), shape[1], dy.dtype()},
                                                  stream);
                  });
                  return {dweight};
                });
}

Tensor gather_rows(const Tensor& x, const std::vector<int32_t>& rows) {
  check(x.rank() == 2, "gather_rows: x is ", x.shape());
  check_rows("gather_rows", rows, x.size(0));
  const Tensor index = index_tensor(rows, x.device());
  return record("gather_rows", gathered(x.detach(), index), {x},
                [shape = x.shape(), index](const Tensor& dy, const Needs&) -> Gradients {
                  Tensor dx = zeros(shape, dy.dtype(), dy.device());
                  scatter(dy, index, dx);
                  return {dx};
                });
}

void write_rows(const Tensor& x, const Tensor& rows, const Tensor& cache) {
  check(cache.rank() == 3 && x.rank() == 2 && x.size(1) == cache.size(2) && x.dtype() == cache.dtype(),
        "write_rows: x is ", x.shape(), " ", x.dtype(), ", but the cache is ", cache.shape(), " ", cache.dtype());
  scatter(x, rows, cache);
}

Tensor splice(const Tensor& a, const std::vector<int32_t>& a_rows, const Tensor& b,
              const std::vector<int32_t>& b_rows) {
  check(a.rank() == 2 && b.rank() == 2 && a.size(1) == b.size(1), "splice: a is ", a.shape(), ", but b is ", b.shape());
  check(a.size(0) == static_cast<int64_t>(a_rows.size()) && b.size(0) == static_cast<int64_t>(b_rows.size()),
        "splice: ", a.size(0), " and ", b.size(0), " rows for ", a_rows.size(), " and ", b_rows.size(), " places");
  const int64_t R = a.size(0) + b.size(0);
  check_rows("splice", a_rows, R);
  check_rows("splice", b_rows, R);
  const Tensor a_index = index_tensor(a_rows, a.device()), b_index = index_tensor(b_rows, a.device());
  Tensor y = empty({R, a.size(1)}, DType::f32, a.device());
  scatter(a, a_index, y);
  scatter(b, b_index, y);
  const DType a_dtype = a.dtype(), b_dtype = b.dtype();
  return record("splice", y, {a, b}, [=](const Tensor& dy, const Needs& needs) -> Gradients {
    return {needs[0] ? cast(gathered(dy, a_index), a_dtype) : Tensor(),
            needs[1] ? cast(gathered(dy, b_index), b_dtype) : Tensor()};
  });
}

}  // namespace nanovlm
