#include "bench/common/case.h"

#include <algorithm>

#include "bench/common/harness.h"
#include "engine/error.h"
#include "engine/ops.h"
#include "kernels/parallel.h"

namespace nanovlm::bench {

double checked_error(const Case& c, const std::string& impl, const std::vector<Outcome>& outcomes, double slack) {
  double worst = 0;
  for (const Outcome& o : outcomes) {
    const testing::Closeness found = testing::closeness(o.got, o.exact, o.rounded, o.terms);
    require(found.error <= slack * found.allowed(),
            text(impl, "'s ", o.name, " of ", c.operation, ' ', c.dir, ' ', name_of(c.dtype), " is off by ",
                 found.error, ", at most ", slack * found.allowed(), " is rounding"));
    // Where nothing but rounding is left of a result, its terms tell how large it might have been.
    const double largest = testing::max_magnitude(o.exact);
    worst = std::max(worst, found.error / std::max(largest > found.ulp ? largest : o.terms, 1e-30));
  }
  return worst;
}

Tensor normal(Shape shape, DType dtype, Random& random, const Device& device, float deviation) {
  // One for all operands: a device has memory of its own, and the system clears what it takes anew.
  static const Device host = Device::open("cpu");
  return to_device(cast(random_normal(std::move(shape), deviation, random, host), dtype), device);
}

Values values_of(const Tensor& x) {
  if (x.dtype() == DType::i32) {
    const std::vector<int32_t> values = to_host_i32(x);
    return Values(values.begin(), values.end());
  }
  const std::vector<float> values = to_host(x);
  Values all(values.size());
  kernels::parallel_for(static_cast<int64_t>(values.size()), 1 << 16, [&](int64_t begin, int64_t end) {
    std::copy(values.begin() + begin, values.begin() + end, all.begin() + begin);
  });
  return all;
}

}  // namespace nanovlm::bench
