#include "kernels/rows/rows.h"

#include <algorithm>
#include <numeric>

#include "engine/ops.h"
#include "engine/ops/checks.h"

namespace nanovlm {
namespace {

void check_rows(const char* op, const std::vector<int32_t>& rows, int64_t limit) {
  for (size_t i = 0; i < rows.size(); ++i)
    check(rows[i] >= 0 && rows[i] < limit, op, ": index ", i, " is ", rows[i], ", but there are ", limit, " rows");
}

void check_distinct(const char* op, const std::vector<int32_t>& rows, int64_t limit) {
  std::vector<bool> named(static_cast<size_t>(limit));
  for (const int32_t row : rows) {
    check(!named[static_cast<size_t>(row)], op, ": row ", row, " is named twice, but rows must be distinct");
    named[static_cast<size_t>(row)] = true;
  }
}

Tensor gathered(const Tensor& x, const Tensor& index, DType dtype) {
  check_contiguous("gather_rows", {{"x", x}});
  const int64_t R = index.numel(), C = x.size(1);
  Tensor y = empty({R, C}, dtype, x.device());
  on(x.device(), "gather_rows", [&](auto backend, Stream stream) {
    kernels::gather_rows(backend, {x.data(), index.i32(), y.data(), R, C, x.dtype(), dtype}, stream);
  });
  return y;
}

Tensor gathered(const Tensor& x, const Tensor& index) { return gathered(x, index, x.dtype()); }

void scatter(const Tensor& x, const Tensor& index, const Tensor& y) {
  check_contiguous("scatter_rows", {{"x", x}, {"y", y}});
  on(x.device(), "scatter_rows", [&](auto backend, Stream stream) {
    kernels::scatter_rows(backend, {x.data(), index.i32(), y.data(), index.numel(), x.size(1), x.dtype(), y.dtype()},
                          stream);
  });
}

void check_index(const char* op, const Tensor& index) {
  check(index.rank() == 1 && index.dtype() == DType::i32, op, ": row numbers are ", index.shape(), " ", index.dtype(),
        ", but must be [R] i32");
  check_contiguous(op, {{"row numbers", index}});
}

}  // namespace

Tensor row_numbers(const std::vector<int32_t>& rows, const Device& device) {
  return from_host(rows, {static_cast<int64_t>(rows.size())}, device);
}

TokenIds token_ids(const std::vector<int32_t>& ids, bool gradient, const Device& device) {
  if (!gradient) return {row_numbers(ids, device), {}, {}, {}};
  std::vector<int32_t> order(ids.size()), target, starts;
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return ids[a] < ids[b]; });
  for (size_t i = 0; i < order.size(); ++i)
    if (i == 0 || ids[order[i]] != target.back()) {
      target.push_back(ids[order[i]]);
      starts.push_back(static_cast<int32_t>(i));
    }
  target.resize(ids.size(), -1);
  starts.resize(ids.size() + 1, static_cast<int32_t>(ids.size()));
  return {row_numbers(ids, device), row_numbers(target, device), row_numbers(starts, device),
          row_numbers(order, device)};
}

Tensor embedding(const Tensor& weight, const std::vector<int32_t>& ids) {
  check(weight.rank() == 2, "embedding: weight is ", weight.shape());
  check_rows("embedding", ids, weight.size(0));
  const bool gradient = weight.requires_grad() && weight.device().context().record_gradients;
  return embedding(weight, token_ids(ids, gradient, weight.device()));
}

Tensor embedding(const Tensor& weight, const TokenIds& ids) {
  check(weight.rank() == 2, "embedding: weight is ", weight.shape());
  check_index("embedding", ids.ids);
  return record("embedding", gathered(weight.detach(), ids.ids, DType::f32), {weight},
                [weight, ids](const Tensor& dy, const Needs&) -> Gradients {
                  check(ids.target.defined(), "embedding: its ids came without what the gradient needs");
                  const MemoryScope scope(dy.device(), MemoryClass::gradient);
                  Tensor dweight = gradient_so_far(weight);
                  if (!dweight.defined()) dweight = zeros(weight.shape(), DType::f32, dy.device());
                  on(dy.device(), "gather_rows_backward", [&](auto backend, Stream stream) {
                    kernels::gather_rows_backward(backend,
                                                  {dy.data(), ids.target.i32(), ids.starts.i32(), ids.order.i32(),
                                                   dweight.f32(), ids.target.numel(), dy.size(1), dy.dtype()},
                                                  stream);
                  });
                  return {dweight};
                });
}

Tensor gather_rows(const Tensor& x, const std::vector<int32_t>& rows) {
  check(x.rank() == 2, "gather_rows: x is ", x.shape());
  check_rows("gather_rows", rows, x.size(0));
  if (x.requires_grad() && x.device().context().record_gradients) check_distinct("gather_rows", rows, x.size(0));
  return gather_rows(x, row_numbers(rows, x.device()));
}

Tensor gather_rows(const Tensor& x, const Tensor& rows) {
  check(x.rank() == 2, "gather_rows: x is ", x.shape());
  check_index("gather_rows", rows);
  return record("gather_rows", gathered(x.detach(), rows), {x},
                [shape = x.shape(), rows](const Tensor& dy, const Needs&) -> Gradients {
                  Tensor dx = zeros(shape, dy.dtype(), dy.device());
                  scatter(dy, rows, dx);
                  return {dx};
                });
}

void write_rows(const Tensor& x, const Tensor& rows, const Tensor& cache) {
  check(cache.rank() == 3 && x.rank() == 2 && x.size(1) == cache.size(2) && x.dtype() == cache.dtype(),
        "write_rows: x is ", x.shape(), " ", x.dtype(), ", but the cache is ", cache.shape(), " ", cache.dtype());
  check_index("write_rows", rows);
  check(rows.numel() == x.size(0), "write_rows: ", rows.numel(), " row numbers for x of ", x.shape());
  scatter(x, rows, cache);
}

Tensor splice(const Tensor& a, const std::vector<int32_t>& a_rows, const Tensor& b,
              const std::vector<int32_t>& b_rows) {
  const auto R = static_cast<int64_t>(a_rows.size() + b_rows.size());
  std::vector<int32_t> all = a_rows;
  all.insert(all.end(), b_rows.begin(), b_rows.end());
  check_rows("splice", a_rows, R);
  check_rows("splice", b_rows, R);
  check_distinct("splice", all, R);
  return splice(a, row_numbers(a_rows, a.device()), b, row_numbers(b_rows, a.device()));
}

Tensor splice(const Tensor& a, const Tensor& a_rows, const Tensor& b, const Tensor& b_rows) {
  check(a.rank() == 2 && b.rank() == 2 && a.size(1) == b.size(1), "splice: a is ", a.shape(), ", but b is ", b.shape());
  check_index("splice", a_rows);
  check_index("splice", b_rows);
  check(a.size(0) == a_rows.numel() && b.size(0) == b_rows.numel(), "splice: ", a.size(0), " and ", b.size(0),
        " rows for ", a_rows.numel(), " and ", b_rows.numel(), " places");
  Tensor y = empty({a.size(0) + b.size(0), a.size(1)}, DType::f32, a.device());
  scatter(a, a_rows, y);
  scatter(b, b_rows, y);
  const DType a_dtype = a.dtype(), b_dtype = b.dtype();
  return record("splice", y, {a, b}, [=](const Tensor& dy, const Needs& needs) -> Gradients {
    return {needs[0] ? cast(gathered(dy, a_rows), a_dtype) : Tensor(),
            needs[1] ? cast(gathered(dy, b_rows), b_dtype) : Tensor()};
  });
}

}  // namespace nanovlm
