// The cuda device on libraries that need no GPU (kernels/stand_in/runtime.h): every schedule that CUDA allows, every
// call that may fail, every machine that has no GPU to use.
#include "kernels/stand_in/runtime.h"

#include <cmath>

#include "engine/ops.h"
#include "engine/random.h"
#include "engine/recording.h"
#include "kernels/cuda/gpu.h"
#include "model/trainer.h"
#include "tests/support/catch.h"

namespace nanovlm::testing {
namespace {

using stand_in::Machine;
using stand_in::Schedule;

constexpr Schedule kSchedules[] = {Schedule::early, Schedule::late, Schedule::compute_late, Schedule::copies_late,
                                   Schedule::random};

// Calls f on each machine whose streams may work in another order, and for random ones on several.
template <class F>
void for_each_schedule(const F& f) {
  for (const Schedule schedule : kSchedules)
    for (uint64_t seed = 1; seed <= (schedule == Schedule::random ? 5 : 1); ++seed) {
      CAPTURE(static_cast<int>(schedule), seed);
      stand_in::set_machine({.schedule = schedule, .seed = seed});
      f();
    }
  stand_in::set_machine({});
}

VLMConfig small_config() {
  VLMConfig config;
  config.vit_hidden_dim = 64, config.vit_inter_dim = 96, config.vit_n_heads = 2, config.vit_n_blocks = 1;
  config.vit_img_size = 32, config.vit_patch_size = 8, config.mp_pixel_shuffle_factor = 2;
  config.IMAGE_TOKEN_LENGTH = config.image_tokens();
  config.lm_hidden_dim = 64, config.lm_inter_dim = 96, config.lm_n_heads = 2, config.lm_n_kv_heads = 1;
  config.lm_n_blocks = 1, config.lm_vocab_size = 50;
  return config;
}

// Two pictures and texts; dense batches of one shape are steps of one form.
Batch small_batch(const VLMConfig& config, uint32_t seed) {
  constexpr int64_t B = 2, T = 6;
  const Device host = Device::open("cpu");
  std::mt19937 random(seed);
  const auto numbers = [&]<class T_>(T_, int64_t n, uint32_t below) {
    std::vector<T_> values(static_cast<size_t>(n));
    for (T_& value : values) value = static_cast<T_>(random() % below);
    return values;
  };
  const int64_t S = config.vit_img_size;
  const uint32_t V = static_cast<uint32_t>(config.lm_vocab_size);
  return {from_host(numbers(uint8_t{}, B * 3 * S * S, 256), {B, 3, S, S}, host),
          from_host(numbers(int32_t{}, B * T, V), {B, T}, host), Tensor{},
          from_host(numbers(int32_t{}, B * T, V), {B, T}, host)};
}

struct Trained {
  std::vector<double> losses;
  std::vector<float> weight;
  bool operator==(const Trained&) const = default;
};

Trained trained(const Device& device, bool recorded) {
  const VLMConfig config = small_config();
  VisionLanguageModel model(config, device);
  model.initialise(1);
  TrainerOptions options;
  options.max_steps = 100, options.dtype = DType::bf16, options.padding = Padding::dense, options.recorded = recorded;
  Trainer trainer(model, options);
  Trained result;
  for (uint32_t step = 0; step < 5; ++step) {
    const std::vector<Batch> next = {small_batch(config, step + 1)};
    const auto stage_next = [&] { trainer.stage(next); };
    result.losses.push_back(trainer.step({small_batch(config, step)}, 0, stage_next).losses[0]);
  }
  CHECK(trainer.recordings() == (recorded ? 1 : 0));
  result.weight = to_host(model.MP.proj.weight);
  return result;
}

TEST_CASE("training gives the same bits whenever streams work, with and without recorded launches") {
  const Trained on_simt = trained(Device::open("simt"), false);
  std::vector<Trained> all;
  for_each_schedule([&] {
    for (const bool recorded : {false, true}) all.push_back(trained(Device::open("cuda"), recorded));
    CHECK(all.back() == all.front());
    CHECK(all[all.size() - 2] == all.front());
  });
  // Products add in another order there.
  for (size_t i = 0; i < on_simt.losses.size(); ++i) CHECK(all[0].losses[i] == Approx(on_simt.losses[i]).epsilon(1e-2));
}

TEST_CASE("a GPU tells of every launch") {
  stand_in::set_machine({});
  const Device device = Device::open("cuda");
  NoGrad none(device);
  const Tensor x = zeros({4, 96}, DType::f32, device), w = zeros({96, 96}, DType::f32, device);
  std::vector<cuda::Launch> heard;
  device.context().gpu->on_launch = [&](const cuda::Launch& launch) { heard.push_back(launch); };
  gelu(x);
  linear(x, w, Tensor{}, DType::f32);
  CHECK(heard.size() == 2);
  CHECK(heard[0].kernel != nullptr);
  CHECK(heard[0].shared_bytes == 0);
  CHECK(heard[1].kernel == nullptr);  // the library's
  device.context().gpu->on_launch = nullptr;
}

TEST_CASE("uploads that go around the ring stay whole and in order whenever streams work") {
  constexpr int64_t kMiB = 1 << 20;
  for_each_schedule([] {
    const Device device = Device::open("cuda");
    const Tensor place = zeros({11 * kMiB}, DType::i32, device);
    for (int32_t turn = 1; turn <= 3; ++turn) {  // the ring has 64 MiB
      std::vector<int32_t> values(static_cast<size_t>(place.numel()));
      for (size_t i = 0; i < values.size(); ++i) values[i] = turn + static_cast<int32_t>(i);
      copy_from_host(place, values.data(), place.bytes());
      const Tensor copy = empty_like(place);
      device.copy(copy.data(), place.data(), place.bytes());
      std::vector<int32_t> back(values.size());
      copy_to_host(copy, back.data(), copy.bytes());
      CHECK(back == values);
    }
  });
}

TEST_CASE("the time that an algorithm takes by chance changes no bit of a product") {
  std::vector<std::vector<float>> results;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    stand_in::set_machine({.seed = seed});
    const Device device = Device::open("cuda");
    Random random(3);
    const Tensor a = random_normal({37, 200}, 1, random, device), b = random_normal({41, 200}, 1, random, device);
    results.push_back(to_host(linear(a, b, {}, DType::f32)));
    CHECK(results.back() == results.front());
  }
  stand_in::set_machine({});
}

// Something of all that the cuda device does.
void use_all_of_it() {
  const Device device = Device::open("cuda", {"mlp=epilogue"});
  Random random(5);
  const auto normal = [&](Shape shape) { return random_normal(std::move(shape), 1, random, device); };
  const Tensor x = normal({40, 16}), weight1 = normal({24, 16}), weight2 = normal({16, 24});
  const Tensor y = mlp(cast(x, DType::bf16), weight1, normal({24}), weight2, normal({16}), DType::bf16);
  const Tensor sum = zeros({16}, DType::f32, device);
  const auto work = [&] {
    const Tensor product = linear(cast(y, DType::f32), weight1, {}, DType::f32);
    device.copy(sum.data(), product.data(), sum.bytes());
  };
  while (!Recording::rehearse(device, work)) continue;
  Recording recording(device, work);
  recording.replay();
  to_host(sum);
  device.synchronise();
}

TEST_CASE("whichever call fails, the error says so and nothing is left behind") {
  stand_in::set_machine({});
  const int64_t before = stand_in::calls_that_may_fail();
  use_all_of_it();
  const int64_t calls = stand_in::calls_that_may_fail() - before;
  CHECK(calls > 100);
  CHECK(stand_in::held() == stand_in::Held{});
  int64_t errors = 0, tried = 0;
  for (int64_t call = 1; call <= calls; call += call < 100 ? 1 : 3) {  // the later ones are much alike
    CAPTURE(call);
    ++tried;
    stand_in::set_machine({.failing_call = call});
    try {
      use_all_of_it();
    } catch (const std::exception& error) {
      ++errors;
      INFO(error.what());
      CHECK(std::string(error.what()).size() > 20);
    }
    REQUIRE(stand_in::held() == stand_in::Held{});
  }
  CHECK(errors > tried * 3 / 4);
  stand_in::set_machine({});
}

TEST_CASE("a kernel that fails is found by the next wait, which names the launches since the last one, and stays") {
  for (const Schedule schedule : kSchedules) {
    stand_in::set_machine({.schedule = schedule});
    {
      const Device device = Device::open("cuda");
      const Tensor x = zeros({40}, DType::f32, device);
      cuda::Gpu& gpu = *device.context().gpu;
      const auto fails = [&] {
        stand_in::enqueue(gpu.compute_stream(), [](auto&) { throw std::runtime_error("an illegal address"); });
        scale(x, 2.0f);
        device.synchronise();
      };
      CHECK_THROWS_WITH(fails(), contains("CUDA says: an illegal address") && contains("scale (grid 1x1x1, block 256"));
      CHECK_THROWS_WITH(to_host(x), contains("CUDA says: an illegal address"));
    }
    stand_in::set_machine({});
    CHECK(to_host(scale(zeros({1}, DType::f32, Device::open("cuda")), 2.0f)) == std::vector<float>(1));
  }
}

TEST_CASE("a machine without a GPU to use says why, and gives no device") {
  const auto reason = [](const Machine& machine) {
    stand_in::set_machine(machine);
    const std::string why = Device::why_absent("cuda");
    CHECK_THROWS_WITH(Device::open("cuda"), contains("device: no cuda device: " + why));
    return why;
  };
  CHECK(reason({.driver = 0}) == "no CUDA driver is installed");
  CHECK_THAT(reason({.driver = 11080}), contains("the driver is too old: it knows CUDA 11.8, and this build needs "));
  CHECK_THAT(reason({.devices = 0}), contains("the driver finds no GPU"));
  CHECK(reason({.capability_major = 7, .capability_minor = 5}) ==
        "the GPU has compute capability 7.5, and 8.0 or later is needed");
  stand_in::set_machine({});
  CHECK(Device::why_absent("cuda").empty());
}

TEST_CASE("more memory than a GPU has: asked, in use, left, and it serves on") {
  stand_in::set_machine({.memory = int64_t{300} << 20});
  {
    const Device device = Device::open("cuda");
    const Tensor kept = zeros({8 << 20}, DType::f32, device);  // 32 MiB
    CHECK_THROWS_WITH(empty({80 << 20}, DType::f32, device),
                      contains("out of memory: asked for 321 MiB, in use 32 MiB") && contains("left on the device"));
    CHECK(to_host(kept.slice(0, 0, 3)) == std::vector<float>(3));
  }
  stand_in::set_machine({});
}

}  // namespace
}  // namespace nanovlm::testing
