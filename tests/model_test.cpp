// The whole model against PyTorch's: every activation, the loss and every gradient of three tiny models.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "data/batch_file.h"
#include "engine/autograd.h"
#include "model/generate.h"
#include "model/weights.h"
#include "tests/support/devices.h"
#include "tests/support/golden.h"

using namespace nanovlm;
using namespace nanovlm::testing;

namespace {

constexpr const char* kModels[] = {"base", "untied", "rope-scaled"};

struct Golden {
  std::string folder;
  VisionLanguageModel model;
  Batch batch;
  nlohmann::json expected;

  static Golden load(const std::string& name, const Device& device) {
    const std::string folder = fixture("tiny-v1/" + name);
    std::vector<std::string> warnings;
    VisionLanguageModel model = load_checkpoint(folder, device, warnings);
    CHECK(warnings.empty());
    nlohmann::json expected = nlohmann::json::parse(std::ifstream(folder + "/expected.json"));
    return {folder, std::move(model), BatchFile(folder + "/batch.safetensors").read(0), std::move(expected)};
  }
};

std::map<std::string, std::vector<float>> gradients(VisionLanguageModel& model) {
  std::map<std::string, std::vector<float>> result;
  walk(model, "", [&](const std::string& name, Tensor& x) {
    REQUIRE(x.grad().defined());
    result[name] = to_host(x.grad());
  });
  return result;
}

// The keys' third of a qkv bias moves every score of a row alike: its gradient is zero but for rounding.
bool is_qkv_bias(const std::string& name) { return name.find("qkv_proj.bias") != std::string::npos; }

void check_gradients(const std::map<std::string, std::vector<float>>& ours, const SafetensorsFile& golden) {
  for (const auto& [name, gradient] : ours) {
    INFO("gradient of " << name);
    std::vector<float> a = gradient, b = golden.read_f32(name);
    REQUIRE(a.size() == b.size());
    if (is_qkv_bias(name))
      for (size_t i = a.size() / 3; i < a.size() / 3 * 2; ++i) {
        CHECK(std::abs(a[i]) <= 1e-6);
        a[i] = b[i] = 0;
      }
    CHECK(excess(a, b, 1e-4 * largest(b), 0) <= 0);
  }
}

// Sample b alone, without labels.
Batch one_of(const Batch& batch, int64_t b) {
  const auto part = [&](const Tensor& x) { return x.defined() ? x.slice(0, b, b + 1) : x; };
  return {part(batch.images), part(batch.input_ids), part(batch.attention_mask), {}};
}

// Every device, and once more those that can have GELU in the products beside it.
std::vector<Device> devices_and_epilogues() {
  std::vector<Device> all = devices();
  for (const Device& device : devices({"mlp=epilogue"})) all.push_back(device);
  return all;
}

void check_generation(const Golden& golden, const Device& device) {
  GenerateOptions options;
  options.sampling.greedy = true;
  options.stop_at_eos = false;
  options.max_new_tokens = 6;
  const auto texts = generate(golden.model, golden.batch, options);

  const NoGrad no_grad(device);
  const int64_t B = golden.batch.size(), V = golden.model.config.lm_vocab_size;
  for (int64_t b = 0; b < B; ++b) {
    const std::vector<int32_t>& tokens = texts[static_cast<size_t>(b)];
    Batch prompt = one_of(golden.batch, b);
    CHECK(generate(golden.model, prompt, options, 2) == std::vector(2, tokens));
    std::vector<int32_t> ids = to_host_i32(prompt.input_ids);
    std::vector<uint8_t> mask(ids.size(), 1);
    if (prompt.attention_mask.defined())
      copy_to_host(prompt.attention_mask, mask.data(), static_cast<int64_t>(mask.size()));
    for (const int32_t token : tokens) {
      prompt.input_ids = from_host(ids, {1, static_cast<int64_t>(ids.size())}, device);
      prompt.attention_mask = from_host(mask, {1, static_cast<int64_t>(ids.size())}, device);
      const std::vector<float> logits = to_host(golden.model.logits(prompt, {}));
      const auto last = logits.end() - V;
      CHECK(token == std::max_element(last, logits.end()) - last);
      ids.push_back(token);
      mask.push_back(1);
    }
  }
}

}  // namespace

TEST_CASE("every activation equals PyTorch's") {
  const Device device = Device::open("cpu");
  for (const std::string name : kModels) {
    INFO("model: " << name);
    Golden golden = Golden::load(name, device);
    const SafetensorsFile activations = SafetensorsFile::open(golden.folder + "/activations.safetensors");
    const NoGrad no_grad(device);
    Forward run;
    std::set<std::string> seen;
    run.trace = [&](const std::string& stage, const Tensor& x) {
      INFO("activation: " << stage);
      REQUIRE(activations.contains(stage));
      seen.insert(stage);
      std::vector<float> a = to_host(x), b = activations.read_f32(stage);
      if (stage == "vision.patch_conv") {  // ours is [B, P, C], PyTorch's [B, C, h, w]
        const Shape shape = activations.entry(stage).shape;
        const size_t B = shape[0], C = shape[1], P = shape[2] * shape[3];
        std::vector<float> rows(b.size());
        for (size_t i = 0; i < B; ++i)
          for (size_t c = 0; c < C; ++c)
            for (size_t p = 0; p < P; ++p) rows[(i * P + p) * C + c] = b[(i * C + c) * P + p];
        b = rows;
      }
      CHECK(excess(a, b, 1e-4, 1e-4) <= 0);
    };
    golden.model.logits(golden.batch, run);
    seen.insert("logits");  // the text part of decoder.head
    CHECK(seen.size() == activations.entries().size());
  }
}

TEST_CASE("loss and every gradient equal PyTorch's, with padded rows computed and left out") {
  for (const Device& device : devices_and_epilogues())
    for (const std::string name : kModels)
      for (const Padding padding : {Padding::dense, Padding::packed}) {
        INFO("device: " << device.name() << ", model: " << name
                        << (padding == Padding::dense ? ", dense" : ", packed"));
        Golden golden = Golden::load(name, device);
        const Tensor loss = golden.model.loss(golden.batch, {}, padding);
        CHECK(std::abs(loss.item() - golden.expected["loss"].get<double>()) <= 1e-5);
        backward(loss);
        check_gradients(gradients(golden.model), SafetensorsFile::open(golden.folder + "/grads.safetensors"));
      }
}

TEST_CASE("bf16 stays as close to fp32 as PyTorch's autocast does") {
  for (const Device& device : devices_and_epilogues())
    for (const std::string name : kModels) {
      INFO("device: " << device.name() << ", model: " << name);
      Golden golden = Golden::load(name, device);
      Forward run;
      run.dtype = DType::bf16;
      const Tensor loss = golden.model.loss(golden.batch, run);
      CHECK(std::abs(loss.item() - golden.expected["loss"].get<double>()) <= 5e-2);
      backward(loss);
      const SafetensorsFile exact = SafetensorsFile::open(golden.folder + "/grads.safetensors");
      double error = 0, norm = 0;
      for (const auto& [parameter, a] : gradients(golden.model)) {
        const std::vector<float> b = exact.read_f32(parameter);
        for (size_t i = 0; i < a.size(); ++i) error += std::pow(double{a[i]} - b[i], 2), norm += double{b[i]} * b[i];
      }
      CHECK(std::sqrt(error / norm) <= 0.05);

      const NoGrad no_grad(device);
      const std::vector<float> logits = to_host(golden.model.logits(golden.batch, run));
      const SafetensorsFile activations = SafetensorsFile::open(golden.folder + "/activations.safetensors");
      const std::vector<float> head = activations.read_f32("decoder.head");
      CHECK(excess(logits, head, 5e-2 * largest(head), 0) <= 0);
    }
}

TEST_CASE("the same inputs give the same bits") {
  const Device device = Device::open("cpu");
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Forward run;
    run.dtype = dtype;
    std::vector<std::map<std::string, std::vector<float>>> results;
    for (int repeat = 0; repeat < 2; ++repeat) {
      Golden golden = Golden::load("base", device);
      backward(golden.model.loss(golden.batch, run));
      results.push_back(gradients(golden.model));
    }
    CHECK(results[0] == results[1]);
  }
}

TEST_CASE("generation chooses the tokens that a full forward pass would") {
  for (const Device& device : devices())
    for (const std::string name : kModels) {
      Golden golden = Golden::load(name, device);
      const int64_t T = golden.model.config.image_tokens() + golden.batch.input_ids.size(1);
      int64_t& max_positions = golden.model.decoder.rotary_embd.max_positions;
      // Past the last position the frequencies follow the length: from the prompt on, after two tokens more, or never.
      for (const int64_t last : {max_positions, T + 2}) {
        INFO("device: " << device.name() << ", model: " << name << ", positions: " << last << " for " << T);
        max_positions = last;
        check_generation(golden, device);
      }
    }
}

TEST_CASE("generating more rows than 32 bits count is refused") {
  const Golden golden = Golden::load("base", Device::open("cpu"));
  GenerateOptions options;
  for (const int64_t tokens : {int64_t{INT32_MAX}, INT32_MAX / golden.batch.size(), INT64_MAX}) {
    options.max_new_tokens = tokens;
    CHECK_THROWS_WITH(generate(golden.model, golden.batch, options), contains("expected at most 2147483647 in all"));
  }
}

TEST_CASE("a checkpoint that is saved and loaded again is the same, in nanoVLM's own names") {
  const Device device = Device::open("cpu");
  for (const std::string name : kModels) {
    Golden golden = Golden::load(name, device);
    const std::string folder = "/tmp/nanovlm_model_test_" + std::to_string(getpid());
    save_checkpoint(golden.model, folder);
    save_checkpoint(golden.model, folder);  // over an older one
    const SafetensorsFile ours = SafetensorsFile::open(folder + "/model.safetensors");
    const SafetensorsFile theirs = SafetensorsFile::open(golden.folder + "/model.safetensors");
    CHECK(ours.entries().size() == theirs.entries().size());
    for (const auto& [tensor, entry] : theirs.entries()) {
      INFO(tensor);
      REQUIRE(ours.contains(tensor));
      CHECK(ours.entry(tensor).shape == entry.shape);
      CHECK(excess(ours.read_f32(tensor), theirs.read_f32(tensor), 0, tensor.ends_with("inv_freq") ? 1e-6 : 0) <= 0);
    }
    std::vector<std::string> warnings;
    CHECK(to_json_text(load_config(folder, warnings)) == to_json_text(golden.model.config));
    CHECK(warnings.empty());
    std::filesystem::remove_all(folder);
  }
}
