// The plain formula of a matrix product; see reference.h.
#pragma once
#include "tests/support/reference.h"

namespace nanovlm::testing::reference {

struct Product {
  int64_t M, N, K;
  bool transpose_a, transpose_b;  // how a and b are stored
  DType out;
};

// op(a) op(b) + bias[n] + before[m, n]; an empty one is not added.
template <class Real>
Values product(const Product& s, const Values& a, const Values& b, const Values& bias, const Values& before) {
  Values result(s.M * s.N);
  for (int64_t m = 0; m < s.M; ++m)
    for (int64_t n = 0; n < s.N; ++n) {
      Real sum = 0;
      for (int64_t k = 0; k < s.K; ++k)
        sum += Real(a[s.transpose_a ? k * s.M + m : m * s.K + k]) * Real(b[s.transpose_b ? n * s.K + k : k * s.N + n]);
      if (!bias.empty()) sum += Real(bias[n]);
      if (!before.empty()) sum += Real(before[m * s.N + n]);
      result[m * s.N + n] = stored(sum, s.out);
    }
  return result;
}

}  // namespace nanovlm::testing::reference
