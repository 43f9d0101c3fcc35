// The engine below the operations: memory, random numbers, schedule.
#include <cmath>
#include <set>

#include "engine/autograd.h"
#include "engine/ops.h"
#include "engine/random.h"
#include "engine/schedule.h"
#include "tests/support/catch.h"

using namespace nanovlm;

TEST_CASE("blocks given back are joined and used again") {
  CachingAllocator memory(CachingAllocator::host_memory());
  void* a = memory.allocate(1000, MemoryClass::parameter);
  void* b = memory.allocate(1000, MemoryClass::activation);
  void* c = memory.allocate(1000, MemoryClass::activation);
  const int64_t reserved = memory.report().reserved;
  CHECK(memory.report().in_use == 3 * 1024);
  CHECK(memory.report().by_class[static_cast<int>(MemoryClass::activation)] == 2 * 1024);
  memory.free(b);
  memory.free(a);
  CHECK(memory.allocate(2048, MemoryClass::workspace) == a);  // the two neighbours, joined
  memory.free(a);
  memory.free(c);
  CHECK(memory.report().in_use == 0);
  CHECK(memory.report().peak == 3 * 1024);
  CHECK(memory.report().reserved == reserved);
  memory.release_unused();
  CHECK(memory.report().reserved == 0);
  CHECK_THROWS_WITH(memory.free(a), contains("not a block in use"));
}

TEST_CASE("segments that are fixed are not given back") {
  CachingAllocator memory(CachingAllocator::host_memory());
  memory.free(memory.allocate(1000, MemoryClass::activation));
  const int64_t reserved = memory.report().reserved;
  memory.fix(true);
  memory.release_unused();
  CHECK(memory.report().reserved == reserved);
  memory.fix(false);
  memory.release_unused();
  CHECK(memory.report().reserved == 0);
}

TEST_CASE("blocks never overlap, whatever the order") {
  CachingAllocator memory(CachingAllocator::host_memory());
  Random random(5);
  std::vector<std::pair<char*, size_t>> live;
  for (int i = 0; i < 3000; ++i) {
    if (!live.empty() && random.below(2)) {
      const size_t j = random.below(live.size());
      for (size_t k = 0; k < live[j].second; ++k) REQUIRE(live[j].first[k] == static_cast<char>(live[j].second));
      memory.free(live[j].first);
      live.erase(live.begin() + static_cast<long>(j));
    } else {
      const size_t size = 1 + random.below(5000);
      char* p = static_cast<char*>(memory.allocate(size, MemoryClass::activation));
      REQUIRE(reinterpret_cast<uintptr_t>(p) % 256 == 0);
      std::fill(p, p + size, static_cast<char>(size));
      live.emplace_back(p, size);
    }
  }
}

TEST_CASE("out of memory says what was asked, what is in use, and who has it") {
  int left = 1;
  CachingAllocator::Source host = CachingAllocator::host_memory();
  CachingAllocator memory({[&](size_t bytes) { return left-- > 0 ? host.take(bytes) : nullptr; }, host.give_back});
  memory.allocate(8 << 20, MemoryClass::parameter);
  CHECK_THROWS_WITH(memory.allocate(100 << 20, MemoryClass::activation),
                    contains("asked for 101 MiB") && contains("parameters 8") && contains("at most 8 MiB would fit"));
  CHECK_NOTHROW(memory.allocate(4 << 20, MemoryClass::activation));  // what is left still serves
}

TEST_CASE("the simt device says so too when its memory is out") {
  if (!Device::why_absent("simt").empty()) return;
  const Device device = Device::open("simt");
  const Tensor kept = empty({1 << 20}, DType::f32, device);
  CHECK_THROWS_WITH(empty({int64_t{1} << 38}, DType::f32, device),
                    contains("out of memory: asked for 1048577 MiB") && contains("activations 4") &&
                        contains("left on the device"));
}

TEST_CASE("Philox is the published generator") {
  // Known answers of Random123 for philox4x32-10.
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
}

TEST_CASE("random numbers depend on seed, stream and position only") {
  Random a(1, 2), b(1, 2), c(1, 3);
  std::vector<uint32_t> first;
  for (int i = 0; i < 9; ++i) first.push_back(a.bits());
  b.seek(5);
  CHECK(b.bits() == first[5]);
  CHECK(c.bits() != first[0]);
  Random whole(1, 2);  // of two draws the first is the upper half
  CHECK(whole.below(UINT64_MAX) == (uint64_t{first[0]} << 32 | first[1]));

  const Device device = Device::open("cpu");
  Random r(4);
  const std::vector<float> x = to_host(random_normal({100001}, 2.0f, r, device));
  double mean = 0, square = 0;
  for (const float value : x) mean += value, square += double{value} * value;
  CHECK(std::abs(mean / 1e5) < 0.03);
  CHECK(std::sqrt(square / 1e5) == Approx(2.0).epsilon(0.02));
}

TEST_CASE("a permutation holds every number once and follows its seed") {
  const auto p = permutation(1000, 1);
  CHECK(std::set<int64_t>(p.begin(), p.end()).size() == 1000);
  CHECK(p == permutation(1000, 1));
  CHECK(p != permutation(1000, 2));
  CHECK(permutation(0, 1).empty());
}

TEST_CASE("the learning rate warms up, falls on a cosine, and rests at a tenth") {
  CHECK(get_lr(0, 1.0, 1000) == Approx(1.0 / 30));
  CHECK(get_lr(29, 1.0, 1000) == Approx(1.0));
  CHECK(get_lr(30, 1.0, 1000) == Approx(1.0));
  CHECK(get_lr(515, 1.0, 1000) == Approx(0.55));
  CHECK(get_lr(1000, 1.0, 1000) == Approx(0.1));
  CHECK(get_lr(5000, 1.0, 1000) == Approx(0.1));
  CHECK(get_lr(0, 1.0, 0) == Approx(0.1));
  CHECK(get_lr(0, 1.0, 20) == Approx(1 / 0.6));  // the warm-up is a fraction: the first rate exceeds the largest
}

TEST_CASE("devices that are not there say so in one line") {
  CHECK_THROWS_WITH(Device::open("tpu"), contains("\"tpu\" is unknown"));
  if (!Device::why_absent("cuda").empty())
    CHECK_THROWS_WITH(Device::open("cuda"), contains("no cuda device: " + Device::why_absent("cuda")));
}
