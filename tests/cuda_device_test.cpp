// What the cuda device does beside running kernels: copies, memory, products, errors. Passes over everything where
// there is no GPU.
#include <cstring>

#include "engine/ops.h"
#include "engine/random.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/matmul/matmul.h"
#include "tests/support/catch.h"
#include "tests/support/devices.h"

namespace nanovlm::testing {
namespace {

std::vector<Device> gpus() {
  const std::string reason = Device::why_absent("cuda");
  if (reason.empty()) return {Device::open("cuda"), Device::open("cuda")};
  WARN("no cuda device: " << reason);
  return {};
}

std::vector<uint8_t> pattern(size_t size, uint32_t seed) {
  std::vector<uint8_t> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>((i * 2654435761u + seed) >> 13);
  return bytes;
}

TEST_CASE("uploads of any size arrive whole, larger than the ring that carries them too") {
  for (const Device& device : gpus())
    for (const int64_t size : {int64_t{1}, int64_t{3}, int64_t{100001}, (int64_t{16} << 20) + 1, int64_t{200} << 20}) {
      const std::vector<uint8_t> bytes = pattern(static_cast<size_t>(size), 7);
      const Tensor x = from_host(bytes, {size}, device);
      std::vector<uint8_t> back(bytes.size());
      copy_to_host(x, back.data(), size);
      CHECK(back == bytes);
    }
}

TEST_CASE("uploads keep their place among kernels that use the same memory") {
  for (const Device& device : gpus()) {
    constexpr int64_t kSize = 1 << 20;
    Tensor sum = zeros({kSize}, DType::f32, device);
    for (int i = 1; i <= 50; ++i) {
      // The storage of the last turn is free again, while the addition that reads it may still run.
      const Tensor x = from_host(std::vector<float>(kSize, static_cast<float>(i)), {kSize}, device);
      on(device, "add", [&](auto backend, Stream stream) {
        kernels::add(backend, {sum.data(), x.data(), sum.data(), kSize, DType::f32, DType::f32, DType::f32}, stream);
      });
    }
    CHECK(to_host(sum) == std::vector<float>(kSize, 50 * 51 / 2));
  }
}

TEST_CASE("a product gives the same bits on every call and every device handle") {
  constexpr int64_t M = 1000, N = 576, K = 1536;
  std::vector<float> first;
  for (const Device& device : gpus()) {
    Random random(3);
    const Tensor a = cast(random_normal({M, K}, 1, random, device), DType::bf16);
    const Tensor b = cast(random_normal({N, K}, 1, random, device), DType::bf16);
    for (int call = 0; call < 2; ++call) {
      const Tensor c = empty({M, N}, DType::f32, device);
      on(device, "matmul", [&](auto backend, Stream stream) {
        kernels::matmul(backend,
                        {a.data(), b.data(), c.data(), nullptr, M, N, K, false, true, false, DType::bf16, DType::f32},
                        stream);
      });
      const std::vector<float> values = to_host(c);
      if (first.empty()) first = values;
      CHECK(std::memcmp(values.data(), first.data(), values.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("more memory than the GPU has is refused with what is left, and the device serves on") {
  for (const Device& device : gpus()) {
    CHECK_THROWS_WITH(empty({int64_t{1} << 42}, DType::f32, device),
                      contains("out of memory") && contains("left on the device"));
    CHECK(to_host(zeros({3}, DType::f32, device)) == std::vector<float>(3));
  }
}

}  // namespace
}  // namespace nanovlm::testing
