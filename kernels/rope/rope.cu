// Rotary position embedding on a GPU: a thread a pair of columns. fp32 arithmetic, one rounding. Bound by memory.
#include "kernels/rope/rope.h"

#include "kernels/device.cuh"

namespace nanovlm::kernels {
namespace {

constexpr int kThreads = 128;

template <class T>
__global__ void rope_kernel(const Rope a) {
  const int half = a.D / 2;
  const int64_t pair = int64_t(blockIdx.x) * kThreads + threadIdx.x, head = pair / half;
  if (head >= a.R * a.H) return;
  const int d = static_cast<int>(pair % half);
  const int64_t angle = int64_t(a.positions[head / a.H]) * half + d, at = head * a.D + d;
  const T* x = static_cast<const T*>(a.x) + at;
  T* y = static_cast<T*>(a.y) + at;

  const float low = static_cast<float>(x[0]), high = static_cast<float>(x[half]);
  const float cos = a.cos[angle], sin = a.inverse ? -a.sin[angle] : a.sin[angle];
  y[0] = round_to<T>(low * cos - high * sin);
  y[half] = round_to<T>(high * cos + low * sin);
}

}  // namespace

template <>
void rope(ThisBackend, const Rope& a, Stream stream) {
  const int64_t pairs = a.R * a.H * (a.D / 2);
  if (pairs == 0) return;
  with_float(a.dtype, [&]<class T>(Type<T>) {
    launch("rope", rope_kernel<T>, {ceil_div(pairs, kThreads), kThreads, 0, stream}, a);
  });
}

}  // namespace nanovlm::kernels
