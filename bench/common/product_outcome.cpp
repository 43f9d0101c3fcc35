#include "bench/common/product_outcome.h"

#include <algorithm>

#include "kernels/parallel.h"

namespace nanovlm::bench {
namespace {

// Tensor cores add 16 products a step to a sum, whose fp32 they cut off instead of rounding it: up to an ulp of the
// largest sum is lost at each step, half of it on average, always towards zero. An outcome allows 4 ulp of its terms.
double terms_on_tensor_cores(double largest, int64_t K) { return largest * static_cast<double>(K) / 16 / 4; }

}  // namespace

Outcome product_outcome(const std::string& name, const kernels::Matmul& p, const Values& a, const Values& b,
                        const Values& c, const Device& device) {
  const int64_t step = std::max<int64_t>(p.M * p.N / 1000, 1) | 1, count = (p.M * p.N + step - 1) / step;
  const size_t size = static_cast<size_t>(count);
  Outcome outcome{name, Values(size), Values(size), Values(size)};
  kernels::parallel_for(count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t entry = begin; entry < end; ++entry) {
      const int64_t m = entry * step / p.N, n = entry * step % p.N;
      double exact = 0;
      float plain = 0;
      for (int64_t k = 0; k < p.K; ++k) {
        const double u = a[static_cast<size_t>(p.transpose_a ? k * p.M + m : m * p.K + k)];
        const double v = b[static_cast<size_t>(p.transpose_b ? n * p.K + k : k * p.N + n)];
        exact += u * v, plain += static_cast<float>(u * v);
      }
      const size_t i = static_cast<size_t>(entry);
      outcome.got[i] = c[static_cast<size_t>(entry * step)], outcome.exact[i] = exact;
      outcome.rounded[i] = p.out == DType::bf16 ? static_cast<float>(bf16(plain)) : plain;
    }
  });
  if (device.kind() == DeviceKind::cuda)
    outcome.terms = terms_on_tensor_cores(testing::max_magnitude(outcome.exact), p.K);
  return outcome;
}

}  // namespace nanovlm::bench
