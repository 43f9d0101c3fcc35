#include "kernels/rows/rows.h"

#include "tests/support/backends.h"
#include "tests/support/fixture.h"
#include "tests/support/reference.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

struct Case {
  int64_t R, C, source;  // rows moved, columns, rows of the side that indices point into
};
constexpr Case kCases[] = {{1, 1, 1}, {7, 31, 5}, {9, 33, 40}, {30, 576, 20}, {3, 1001, 7}, {67, 5, 1}, {400, 132, 3}};

template <class Backend>
Buffer gather(Backend backend, Stream stream, Buffer x, Buffer index, int64_t R, int64_t C, DType out) {
  Buffer y(R * C, out);
  kernels::gather_rows(backend, kernels::GatherRows{x, index, y, R, C, x.dtype(), out}, stream);
  return y;
}

template <class Backend>
Buffer scatter(Backend backend, Stream stream, Buffer x, Buffer index, Buffer y, int64_t R, int64_t C) {
  kernels::scatter_rows(backend, kernels::ScatterRows{x, index, y, R, C, x.dtype(), y.dtype()}, stream);
  return y;
}

// The rows of `index` in the order the contract wants: grouped by the row they name.
struct Groups {
  Values target, starts{0}, order;

  explicit Groups(const Values& index) {
    Values rows = index;
    std::sort(rows.begin(), rows.end());
    rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
    for (double row : rows) {
      target.push_back(row);
      for (size_t i = 0; i < index.size(); ++i)
        if (index[i] == row) order.push_back(i);
      starts.push_back(order.size());
    }
  }
};

template <class Backend>
Buffer gather_backward(Backend backend, Stream stream, Buffer dy, const Buffer& index, Buffer dx, int64_t C) {
  const Groups groups(index.values());
  Buffer target(groups.target, DType::i32), starts(groups.starts, DType::i32), order(groups.order, DType::i32);
  const int64_t U = groups.target.size();
  kernels::gather_rows_backward(backend, kernels::GatherRowsBackward{dy, target, starts, order, dx, U, C, dy.dtype()},
                                stream);
  return dx;
}

TEST_CASE("gather and scatter move rows and convert them") {
  for_each_backend([](auto backend, Stream stream) {
    for (DType in : kFloatDTypes)
      for (DType out : kFloatDTypes)
        for (const auto [R, C, source] : kCases) {
          CAPTURE(name_of(in), name_of(out), R, C, source);
          Random random(R + C);
          const Buffer x = random.normal(source * C, in), index = random.integers(R, source);
          const Buffer expected(reference::gather_rows(x.values(), index.values(), C), out);
          CHECK(max_error(gather(backend, stream, x, index, R, C, out).values(), expected.values()) == 0);

          // Distinct places, of which some stay as they were.
          const std::vector<int64_t> order = random.permutation(R + 3);
          const Buffer places(Values(order.begin(), order.begin() + R), DType::i32);
          const Buffer rows = random.normal(R * C, in), before = random.normal((R + 3) * C, out);
          const Values moved = Buffer(rows.values(), out).values();
          const Values after = reference::scatter_rows(moved, places.values(), C, before.values());
          CHECK(max_error(scatter(backend, stream, rows, places, before, R, C).values(), after) == 0);
        }
  });
}

TEST_CASE("a gather's gradient adds up the rows of each place") {
  for_each_backend([](auto backend, Stream stream) {
    for (DType dtype : kFloatDTypes)
      for (const auto [R, C, source] : kCases) {
        CAPTURE(name_of(dtype), R, C, source);
        Random random(R * C);
        const Buffer dy = random.normal(R * C, dtype), index = random.integers(R, source);
        const Buffer before = random.normal(source * C, DType::f32);
        const Buffer dx = gather_backward(backend, stream, dy, index, before, C);
        const Values exact = reference::gather_rows_backward<double>(dy.values(), index.values(), C, before.values());
        check_close("dx", dx.values(), exact,
                    reference::gather_rows_backward<float>(dy.values(), index.values(), C, before.values()));
        CHECK(dx.same_bits(gather_backward(backend, stream, dy, index, before, C)));
      }
  });
}

TEST_CASE("moving rows gives the same bits on one thread and on two") {
  for_each_backend([](auto backend) {
    constexpr int64_t kRows = 500, kColumns = 97;
    Random random(2);
    const Buffer x = random.normal(kRows * kColumns, DType::bf16), index = random.integers(kRows, 3);
    const Buffer before = random.normal(3 * kColumns, DType::f32);
    with_threads(1, [&] {
      const Buffer y = gather(backend, {}, x, index, kRows, kColumns, DType::f32);
      const Buffer dx = gather_backward(backend, {}, x, index, before, kColumns);
      with_threads(2, [&] {
        CHECK(y.same_bits(gather(backend, {}, x, index, kRows, kColumns, DType::f32)));
        CHECK(dx.same_bits(gather_backward(backend, {}, x, index, before, kColumns)));
      });
    });
  });
}

TEST_CASE("no rows are no work") {
  for_each_backend([](auto backend, Stream stream) {
    const Buffer none(0, DType::f32), index(0, DType::i32), before(Values(6, 1.0), DType::f32);
    CHECK(gather(backend, stream, before, index, 0, 3, DType::f32).intact());
    CHECK(scatter(backend, stream, none, index, before, 0, 3).same_bits(before));
    CHECK(gather_backward(backend, stream, none, index, before, 3).same_bits(before));
  });
}

TEST_CASE("the embedding's lookup and gradient agree with PyTorch") {
  const OpFixture fixture("embedding");
  for (int k = 0; k < 3; ++k) {
    CAPTURE(k);
    const Buffer weight(fixture(k, "in.weight"), DType::f32), ids(fixture(k, "const.ids"), DType::i32);
    const Buffer dy(fixture(k, "upstream"), DType::f32);
    const int64_t R = ids.values().size(), C = fixture.shape(k, "in.weight")[1];
    const Values zeros(weight.values().size());
    const auto exact = reference::gather_rows_backward<double>(dy.values(), ids.values(), C, zeros);
    const auto rounded = reference::gather_rows_backward<float>(dy.values(), ids.values(), C, zeros);
    check_close("PyTorch's gradient", fixture(k, "grad.weight"), exact, rounded);
    for_each_backend([&](auto backend, Stream stream) {
      CHECK(max_error(gather(backend, stream, weight, ids, R, C, DType::f32).values(), fixture(k, "out")) == 0);
      const Buffer dweight = gather_backward(backend, stream, dy, ids, Buffer(zeros, DType::f32), C);
      check_close("gradient", dweight.values(), exact, rounded);
    });
  }
}

}  // namespace
}  // namespace nanovlm::testing
