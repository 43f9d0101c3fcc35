#include "kernels/cpu_math.h"

#include <bit>
#include <new>

#include "kernels/attention/tiles.h"

#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

// Distance in units of fp32's spacing at the exact value.
double ulps(float got, double exact) {
  const double spacing = std::ldexp(1.0, std::max(std::ilogb(exact), -126) - 23);
  return std::abs(got - exact) / spacing;
}

TEST_CASE("exp is within 2 ulp from e^-86 up") {
  double largest = 0;
  // A prime step through the bit patterns visits every exponent and no pattern of low bits twice.
  for (uint32_t bits = 0; bits < 0x42b20000u; bits += 3001)  // up to 89
    for (float x : {std::bit_cast<float>(bits), -std::bit_cast<float>(bits)}) {
      const double exact = std::exp(static_cast<double>(x));
      if (x >= -86 && exact < std::numeric_limits<float>::max())
        largest = std::max(largest, ulps(kernels::exp(x), exact));
    }
  CHECK(largest <= 2);
}

TEST_CASE("exp and the sigmoid at their ends") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  CHECK(kernels::exp(0) == 1);
  CHECK(kernels::exp(-0.0f) == 1);
  CHECK(kernels::exp(88.8f) == kInfinity);
  CHECK(kernels::exp(1e30f) == kInfinity);
  CHECK(kernels::exp(kInfinity) == kInfinity);
  CHECK(kernels::exp(88.7f) < kInfinity);
  CHECK(kernels::exp(-86) > 0);
  CHECK(kernels::exp(-86.01f) == 0);
  CHECK(kernels::exp(-1e30f) == 0);
  CHECK(kernels::exp(-kInfinity) == 0);
  CHECK(std::isnan(kernels::exp(NAN)));
  CHECK(kernels::sigmoid(0) == 0.5f);
  CHECK(kernels::sigmoid(1e30f) == 1);
  CHECK(kernels::sigmoid(-1e30f) == 0);
  CHECK(std::isnan(kernels::sigmoid(NAN)));
}

struct NoMemory {
  explicit NoMemory(int) { throw std::bad_alloc(); }
};

TEST_CASE("an exception in a thread's part is thrown on behind the parallel region") {
  for (const int threads : {1, 3})
    with_threads(threads, [&] {
      CAPTURE(threads);
      const auto fail_last = [](int64_t, int64_t end) {
        if (end == 9) throw std::runtime_error("the last part");
      };
      CHECK_THROWS_WITH(kernels::parallel_for(9, 1, fail_last), "the last part");
      CHECK_THROWS_AS(kernels::for_each_task<NoMemory>(9, 0, [](int64_t, const NoMemory&) {}), std::bad_alloc);
      std::atomic<int> done = 0;
      kernels::for_each_task<int>(9, 0, [&](int64_t task, int) { done += 1 << task; });
      CHECK(done == 511);
    });
}

TEST_CASE("parallel_elements tiles its range, whatever the number of threads") {
  for (int threads : {1, 2, 3, 7})
    for (int64_t n : {int64_t{0}, int64_t{1}, int64_t{63}, int64_t{65}, 5 * kernels::kGrain + 17})
      with_threads(threads, [&] {
        std::vector<int> visits(n);
        kernels::parallel_elements(n, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++visits[i];
        });
        CAPTURE(threads, n);
        CHECK(std::all_of(visits.begin(), visits.end(), [](int count) { return count == 1; }));
      });
}

}  // namespace
}  // namespace nanovlm::testing
