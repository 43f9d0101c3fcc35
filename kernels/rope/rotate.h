// RoPE of one head, for the CPU kernels that rotate: rope and attention. Internal linkage, as in kernels/cpu_math.h.
#pragma once

namespace nanovlm::kernels {
namespace {

// y = the rotation of x[D] by the D / 2 angles of one position, rounded to Rounded; `inverse`: its gradient, the
// rotation back. y may be x.
template <class Rounded, class In, class Out>
void rotate(const In* x, Out* y, const float* cos, const float* sin, int D, bool inverse) {
  const int half = D / 2;
  const float direction = inverse ? -1.0f : 1.0f;
  // Both halves are read before either is written, and no other step touches them: x and y may be one array.
#pragma GCC ivdep
  for (int d = 0; d < half; ++d) {
    const float low = static_cast<float>(x[d]), high = static_cast<float>(x[d + half]);
    y[d] = Out(static_cast<float>(Rounded(low * cos[d] - direction * high * sin[d])));
    y[d + half] = Out(static_cast<float>(Rounded(high * cos[d] + direction * low * sin[d])));
  }
}

}  // namespace
}  // namespace nanovlm::kernels
