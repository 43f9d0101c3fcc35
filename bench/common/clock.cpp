#include "bench/common/clock.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "bench/common/case.h"
#include "bench/common/harness.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/matmul/matmul.h"
#include "kernels/parallel.h"

#if defined(NANOVLM_CUDA_KERNELS)
#include "kernels/cuda/check.h"
#include "kernels/cuda/gpu.h"
#endif

namespace nanovlm::bench {
namespace {

double host_seconds(const std::function<void()>& f, int calls) {
  using Now = std::chrono::steady_clock;
  const auto start = Now::now();
  for (int i = 0; i < calls; ++i) f();
  return std::chrono::duration<double>(Now::now() - start).count() / calls;
}

#if defined(NANOVLM_CUDA_KERNELS)
// An event on the device's stream.
class Event {
 public:
  void record(const cuda::Gpu& gpu) {
    cuda::check(cudaEventRecord(event_.get(), gpu.compute_stream()), "bench: recording an event");
  }
  double seconds_since(const Event& start) const {
    float milliseconds = 0;
    cuda::check(cudaEventSynchronize(event_.get()), "bench: waiting for an event");
    cuda::check(cudaEventElapsedTime(&milliseconds, start.event_.get(), event_.get()), "bench: reading an event");
    return milliseconds * 1e-3;
  }

 private:
  cuda::Event event_ = cuda::make_event(cudaEventDefault, "bench");
};

// Holds the stream back until the host has queued all that is to be timed, or else the host's own pace between launches
// would count: some microseconds each. It opens by itself after a while, in case a call waits for the stream.
class Gate {
 public:
  explicit Gate(const cuda::Gpu& gpu) : stream_(gpu.compute_stream()) {
    const auto hold = [](void* gate) {
      const auto limit = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
      while (!static_cast<Gate*>(gate)->open_ && std::chrono::steady_clock::now() < limit) continue;
    };
    cuda::check(cudaLaunchHostFunc(stream_, hold, this), "bench: holding the stream");
  }
  // Where what was to be timed has thrown, the stream may still be at the gate.
  ~Gate() {
    open();
    cudaStreamSynchronize(stream_);
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  void open() { open_ = true; }

 private:
  CUstream_st* stream_;
  std::atomic<bool> open_ = false;
};

double gpu_seconds(const cuda::Gpu& gpu, const std::function<void()>& f, int calls) {
  Event start, stop;
  Gate gate(gpu);
  start.record(gpu);
  for (int i = 0; i < calls; ++i) f();
  stop.record(gpu);
  gate.open();
  return stop.seconds_since(start) / calls;
}
#endif

double host_copy_rate() {
  const size_t bytes = size_t{256} << 20;
  std::vector<char> from(bytes, 1), to(bytes);
  const Timing timing = time(
      [&] {
        kernels::parallel_for(static_cast<int64_t>(bytes), 1 << 20, [&](int64_t begin, int64_t end) {
          std::memcpy(to.data() + begin, from.data() + begin, static_cast<size_t>(end - begin));
        });
      },
      {.min_seconds = 0.3});
  require(to.back() == 1, "copying memory");
  return 2.0 * static_cast<double>(bytes) / timing.least;
}

}  // namespace

double Clock::seconds(const std::function<void()>& f, int calls) const {
#if defined(NANOVLM_CUDA_KERNELS)
  if (device_ && device_->kind() == DeviceKind::cuda) return gpu_seconds(*device_->context().gpu, f, calls);
#endif
  return host_seconds(f, calls);
}

int64_t Clock::cache_bytes() const {
#if defined(NANOVLM_CUDA_KERNELS)
  if (device_ && device_->kind() == DeviceKind::cuda) {
    int device = 0, bytes = 0;
    cuda::check(cudaGetDevice(&device), "bench: the GPU's number");
    cuda::check(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, device), "bench: the size of its cache");
    return bytes;
  }
#endif
  return std::max<int64_t>(sysconf(_SC_LEVEL3_CACHE_SIZE), int64_t{8} << 20);
}

double copy_rate(const Device& device) {
  if (device.is_host()) return host_copy_rate();
  const int64_t n = int64_t{256} << 20;
  const Tensor x = zeros({n}, DType::f32, device), y = empty_like(x);
  const Timing timing = time(
      [&] {
        on(device, "cast", [&](auto backend, Stream stream) {
          kernels::cast(backend, {x.data(), y.data(), n, DType::f32, DType::f32}, stream);
        });
      },
      {.clock = Clock(device)});
  return 2.0 * static_cast<double>(x.bytes()) / timing.least;
}

double product_rate(const Device& device, DType dtype) {
  const int64_t n = device.is_host() ? 1024 : 8192;
  Random random(1);
  const Tensor a = normal({n, n}, dtype, random, device), b = normal({n, n}, dtype, random, device), c = empty_like(a);
  const Timing timing = time(
      [&] {
        on(device, "matmul", [&](auto backend, Stream stream) {
          kernels::matmul(backend, {a.data(), b.data(), c.data(), nullptr, n, n, n, false, true, false, dtype, dtype},
                          stream);
        });
      },
      {.min_seconds = 0.3, .clock = Clock(device)});
  return 2.0 * static_cast<double>(n * n * n) / timing.least;
}

}  // namespace nanovlm::bench
