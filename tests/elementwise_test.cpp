#include "kernels/elementwise/elementwise.h"

#include "tests/support/backends.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

constexpr int64_t kSizes[] = {0, 1, 31, 33, 576, 1001, 50001};

template <class F>
Values map(const Values& x, const F& f) {
  Values y(x.size());
  std::transform(x.begin(), x.end(), y.begin(), f);
  return y;
}

// f(x) in fp32, as the contracts have it, and stored as `dtype`: one operation, so any kernel gives the same bits.
template <class F>
Values stored(const Values& x, DType dtype, const F& f) {
  return Buffer(map(x, [&](double value) { return f(static_cast<float>(value)); }), dtype).values();
}

template <class Backend>
Buffer cast(Backend backend, Stream stream, Buffer x, int64_t n, DType out) {
  Buffer y(n, out);
  kernels::cast(backend, kernels::Cast{x, y, n, x.dtype(), out}, stream);
  return y;
}

TEST_CASE("cast rounds to nearest, ties to even") {
  for_each_backend([](auto backend, Stream stream) {
    for (DType in : kFloatDTypes)
      for (DType out : kFloatDTypes)
        for (int64_t n : kSizes) {
          CAPTURE(name_of(in), name_of(out), n);
          const Buffer x = Random(n).normal(n, in);
          const Buffer y = cast(backend, stream, x, n, out);
          CHECK(max_error(y.values(), stored(x.values(), out, [](float value) { return value; })) == 0);
        }
    // bf16 has 8 bits: 1 + 1/256 and 1 + 3/256 lie halfway between neighbours; the largest float rounds up to inf.
    const double infinity = std::numeric_limits<double>::infinity();
    const Values x{1 + 1 / 256.,
                   1 + 3 / 256.,
                   1 + 1.001 / 256,
                   std::numeric_limits<float>::max(),
                   -infinity,
                   NAN,
                   std::numeric_limits<float>::denorm_min(),
                   -0.0};
    const Values expected{1, 1 + 4 / 256., 1 + 2 / 256., infinity, -infinity, NAN, 0, 0};
    const Values y = cast(backend, stream, Buffer(repeated(x, 9), DType::f32), 72, DType::bf16).values();
    CHECK(max_error(y, repeated(expected, 9)) == 0);
    CHECK(std::signbit(y[7]));
  });
}

TEST_CASE("every bf16 survives a cast to f32 and back") {
  for_each_backend([](auto backend, Stream stream) {
    Buffer x(65536, DType::bf16);
    bf16* bits = x;
    for (int i = 0; i < 65536; ++i) bits[i].bits = static_cast<uint16_t>(i);
    const Buffer back = cast(backend, stream, cast(backend, stream, x, 65536, DType::f32), 65536, DType::bf16);
    CHECK(max_error(back.values(), x.values()) == 0);
  });
}

TEST_CASE("add takes and gives any mixture of dtypes, in place too") {
  for_each_backend([](auto backend, Stream stream) {
    for (DType a_dtype : kFloatDTypes)
      for (DType b_dtype : kFloatDTypes)
        for (DType y_dtype : kFloatDTypes)
          for (int64_t n : kSizes) {
            CAPTURE(name_of(a_dtype), name_of(b_dtype), name_of(y_dtype), n);
            Random random(n);
            Buffer a = random.normal(n, a_dtype), b = random.normal(n, b_dtype), y(n, y_dtype);
            const Values other = b.values();
            size_t i = 0;
            const Values expected =
                stored(a.values(), y_dtype, [&](float value) { return value + static_cast<float>(other[i++]); });
            kernels::add(backend, kernels::Add{a, b, y, n, a_dtype, b_dtype, y_dtype}, stream);
            CHECK(max_error(y.values(), expected) == 0);
            Buffer& over = b_dtype == y_dtype ? b : a;
            if (over.dtype() != y_dtype) continue;
            kernels::add(backend, kernels::Add{a, b, over, n, a_dtype, b_dtype, y_dtype}, stream);
            CHECK(over.same_bits(y));
          }
  });
}

TEST_CASE("scale multiplies by a factor from the host and one from the device") {
  for_each_backend([](auto backend, Stream stream) {
    for (DType dtype : kFloatDTypes)
      for (int64_t n : kSizes)
        for (bool with_device_factor : {false, true}) {
          CAPTURE(name_of(dtype), n, with_device_factor);
          // Powers of two: the order in which the factors meet x changes nothing.
          Buffer x = Random(n).normal(n, dtype), y(n, dtype), factor(Values{4}, DType::f32), none(0, DType::f32);
          const float* device_factor = with_device_factor ? factor : none;
          kernels::scale(backend, kernels::Scale{x, y, n, 0.5f, device_factor, dtype}, stream);
          const float whole = with_device_factor ? 2 : 0.5f;
          CHECK(max_error(y.values(), stored(x.values(), dtype, [&](float value) { return value * whole; })) == 0);
          kernels::scale(backend, kernels::Scale{x, x, n, 0.5f, device_factor, dtype}, stream);
          CHECK(x.same_bits(y));
        }
  });
}

template <class Backend>
Buffer sum(Backend backend, Stream stream, Buffer x, int64_t n) {
  Buffer y(1, DType::f32);
  kernels::sum(backend, kernels::Sum{x, y, n}, stream);
  return y;
}

TEST_CASE("sum is as exact as adding in order, and the same on one thread and on two") {
  for_each_backend([](auto backend, Stream stream) {
    for (int64_t n : kSizes) {
      CAPTURE(n);
      const Buffer x = Random(n).normal(n, DType::f32, 1, 0.1);
      double exact = 0, largest = 0;
      float rounded = 0;
      for (double value : x.values()) {
        exact += value;
        rounded += static_cast<float>(value);
        largest = std::max(largest, std::abs(exact));
      }
      with_threads(1, [&] {
        const Buffer one = sum(backend, stream, x, n);
        check_close("sum", one.values(), {exact}, {rounded}, largest);
        with_threads(2, [&] { CHECK(sum(backend, stream, x, n).same_bits(one)); });
      });
    }
  });
}

TEST_CASE("unit_range divides bytes by 255, rounded once") {
  for_each_backend([](auto backend, Stream stream) {
    for (int64_t n : kSizes) {
      CAPTURE(n);
      Values bytes, exact;
      for (int64_t i = 0; i < n; ++i) bytes.push_back(i % 256), exact.push_back(static_cast<float>(i % 256) / 255.0f);
      Buffer x(bytes, DType::u8), y(n, DType::f32);
      kernels::unit_range(backend, kernels::UnitRange{x, y, n}, stream);
      CHECK(max_error(y.values(), exact) == 0);
    }
  });
}

TEST_CASE("fill writes every place and nothing else") {
  for_each_backend([](auto backend, Stream stream) {
    for (DType dtype : kFloatDTypes)
      for (int64_t n : kSizes) {
        CAPTURE(name_of(dtype), n);
        Buffer y(n, dtype);
        kernels::fill(backend, kernels::Fill{y, n, 0.3f, dtype}, stream);
        CHECK(max_error(y.values(), Buffer(Values(n, 0.3f), dtype).values()) == 0);
      }
  });
}

}  // namespace
}  // namespace nanovlm::testing
