// Published backbones: names, numbers and outputs as nanoVLM gets them (tests/fixtures/backbones), the settings it
// takes over, and every reason for which a folder is refused.
#include "model/backbones.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/autograd.h"
#include "engine/safetensors_folder.h"
#include "model/weights.h"
#include "tests/support/catch.h"
#include "tests/support/folder.h"
#include "tests/support/golden.h"
#include "tests/support/messages.h"

using namespace nanovlm;
using namespace nanovlm::testing;
namespace fs = std::filesystem;

namespace {

std::string folder_of(const std::string& name) { return fixture("backbones/" + name); }

// A small model with these backbones' settings.
VLMConfig config_of(const Backbones& backbones, int64_t vocabulary = 97, bool tied = true) {
  VLMConfig config;
  config.vit_hidden_dim = config.lm_hidden_dim = 16;
  config.vit_inter_dim = config.lm_inter_dim = 16;
  config.vit_n_heads = config.lm_n_heads = config.lm_n_kv_heads = 2;
  config.vit_n_blocks = config.lm_n_blocks = 1;
  config.vit_img_size = 32, config.vit_patch_size = 8, config.IMAGE_TOKEN_LENGTH = 4;
  config.lm_vocab_size = vocabulary;
  config.lm_tie_weights = tied;
  configure_from(backbones, config);
  return config;
}

struct Loaded {
  VisionLanguageModel model;
  std::vector<std::string> notes;

  explicit Loaded(const Backbones& backbones, int64_t vocabulary = 97, bool tied = true)
      : Loaded(backbones, config_of(backbones, vocabulary, tied)) {}
  Loaded(const Backbones& backbones, const VLMConfig& config) : model(config, Device::open("cpu")) {
    model.initialise(1);
    load_backbones(backbones, model, 2, notes);
  }
  bool noted(const std::string& note) const { return std::find(notes.begin(), notes.end(), note) != notes.end(); }
};

std::map<std::string, std::vector<float>> numbers(auto& module) {
  std::map<std::string, std::vector<float>> result;
  walk(module, "", [&](const std::string& name, const Tensor& x) { result[name] = to_host(x); });
  return result;
}

// Every number of the module but `random` ones equals nanoVLM's, and nanoVLM has no other.
void check_mapped(auto& module, const std::string& name, const std::set<std::string>& random = {}) {
  const SafetensorsFile golden = SafetensorsFile::open(folder_of(name + ".mapped.safetensors"));
  const auto ours = numbers(module);
  for (const auto& [tensor, entry] : golden.entries()) {
    INFO(name << ": " << tensor);
    if (tensor == "rotary_embd.inv_freq" || (tensor == "head.weight" && !ours.contains(tensor))) continue;
    REQUIRE(ours.contains(tensor));
    if (!random.contains(tensor)) CHECK(ours.at(tensor) == golden.read_f32(tensor));
  }
  for (const auto& tensor : ours) CHECK(golden.contains(tensor.first));
}

Tensor language_logits(const LanguageModel& decoder, const std::vector<int64_t>& ids, int64_t B) {
  const Device device = Device::open("cpu");
  const auto T = static_cast<int64_t>(ids.size()) / B;
  std::vector<int32_t> bounds;
  for (int64_t b = 0; b <= B; ++b) bounds.push_back(static_cast<int32_t>(b * T));
  const Segments texts = {from_host(bounds, {B + 1}, device), T, {}, {}};
  const Tensor x = embedding(decoder.token_embedding, {ids.begin(), ids.end()});
  return decoder.logits(decoder(x, texts, decoder.rotary_embd(T, device), {}), {});
}

// The first 97 of each row's V logits against nanoVLM's.
void check_logits(const LanguageModel& decoder, const std::string& name) {
  const NoGrad no_grad(decoder.token_embedding.device());
  const SafetensorsFile golden = SafetensorsFile::open(folder_of(name + ".outputs.safetensors"));
  const Tensor logits = language_logits(decoder, golden.read_i64("input_ids"), golden.entry("input_ids").shape[0]);
  const std::vector<float> all = to_host(logits), expected = golden.read_f32("logits");
  const auto V = static_cast<size_t>(logits.size(1)), known = size_t{97};
  std::vector<float> ours;
  for (size_t row = 0; row < all.size() / V; ++row)
    ours.insert(ours.end(), all.begin() + row * V, all.begin() + row * V + known);
  CHECK(excess(ours, expected, 1e-4 * largest(expected), 0) <= 0);
}

// A fixture's config.json with these members instead.
void copy_config(const Folder& to, const std::string& from, const nlohmann::json& changes) {
  nlohmann::json config = nlohmann::json::parse(bytes_of(folder_of(from) + "/config.json"));
  config.update(changes, true);
  to.write("config.json", config.dump());
}

}  // namespace

TEST_CASE("the settings are those that nanoVLM takes over") {
  const std::set<std::string> not_ours = {"lm_base_vocab_size", "lm_use_tokens", "lm_max_length", "lm_tie_weights"};
  for (const auto& [name, vocabulary] :
       {std::pair{"siglip", 97}, {"siglip-vision-bf16", 97}, {"llama", 97}, {"llama-sharded", 97}}) {
    const bool vision = std::string(name).starts_with("siglip");
    const std::string folder = folder_of(name);
    const VLMConfig config = config_of(vision ? Backbones{folder, {}} : Backbones{{}, folder}, vocabulary);
    const auto ours = nlohmann::json::parse(to_json_text(config));
    const auto golden = nlohmann::json::parse(bytes_of(folder + ".config.json"));
    for (const auto& [field, value] : golden.items()) {
      INFO(name << ": " << field);
      if (!not_ours.contains(field)) CHECK(ours.at(field) == value);
    }
  }
}

TEST_CASE("missing settings are the classes' own defaults, as published SigLIP files rely on") {
  const Folder folder;
  folder.write("config.json", R"({"model_type": "siglip", "vision_config": {"model_type": "siglip_vision_model"}})");
  VLMConfig config;
  config.vit_hidden_dim = 7 * 12;
  configure_from({folder.path(), {}}, config);
  CHECK(to_json_text(config) == to_json_text(VLMConfig()));

  folder.write("config.json", R"({"model_type": "siglip", "vision_config": {"image_size": 512}})");
  configure_from({folder.path(), {}}, config);
  CHECK(config.IMAGE_TOKEN_LENGTH == 256);
  CHECK(config.TOTAL_SEQUENCE_LENGTH == 256 + 79);

  folder.write("config.json", R"({"model_type": "llama", "vocab_size": 9, "rope_parameters": {"rope_theta": 5e5}})");
  configure_from({{}, folder.path()}, config);
  CHECK(config.lm_re_base == 5e5);
  CHECK(config.lm_n_kv_heads == 32);
  CHECK(config.lm_vocab_size == 49152);
}

TEST_CASE("RoPE is scaled under every name that transformers knows, and refused under each") {
  const Folder folder;
  const auto refusal = [&](const char* key, const std::string& rope) {
    copy_config(folder, "llama", {{key, nlohmann::json::parse(rope)}});
    return message_of([&] { config_of({{}, folder.path()}); });
  };
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const std::string place = text("the backbones can't be used:\n  ", folder.file("config.json"), ": $.", key);
    CHECK(refusal(key, R"({"type": "linear", "factor": 4.0})") ==
          place + ".type: expected \"default\", found the string \"linear\"\n  " + folder.file("config.json") + ": $." +
              key + ".factor: expected 1.0, found 4.0");
    CHECK(refusal(key, R"({"type": "dynamic", "factor": 1.0})") ==
          place + ".type: expected \"default\", found the string \"dynamic\"");
    CHECK(refusal(key, R"({"rope_type": "default", "type": "linear"})").starts_with(place + ".type: expected "));
    CHECK(refusal(key, R"({"factor": 2.0})") == place + ".factor: expected 1.0, found 2.0");
    CHECK(refusal(key, R"("linear")") == place + ": expected an object, found the string \"linear\"");
    for (const char* plain : {"null", "{}", R"({"type": "default"})", R"({"rope_type": "default", "type": "default"})",
                              R"({"rope_type": "default", "factor": 1})", R"({"type": null, "factor": null})"})
      CHECK(refusal(key, plain) == "no error");
  }
}

TEST_CASE("every tensor of a vision tower is nanoVLM's, bit for bit, and so is its output") {
  for (const std::string name : {"siglip", "siglip-vision-bf16"}) {
    Loaded loaded({folder_of(name), {}});
    check_mapped(loaded.model.vision_encoder, name);
    int64_t count = 0;
    for (const auto& one : numbers(loaded.model.vision_encoder)) count += static_cast<int64_t>(one.second.size());
    CHECK(loaded.noted(
        text("Successfully loaded ", folder_of(name), " weights from safetensors. Model has ", count, " parameters.")));
    const NoGrad no_grad(loaded.model.device());
    const SafetensorsFile golden = SafetensorsFile::open(folder_of(name + ".outputs.safetensors"));
    const Tensor output = loaded.model.vision_encoder(golden.read("images", loaded.model.device()), {});
    const std::vector<float> expected = golden.read_f32("output");
    CHECK(excess(to_host(output), expected, 1e-4 * largest(expected), 0) <= 0);
  }
}

TEST_CASE("a vision tower as transformers 5 saves it, without a prefix, is the same") {
  const Folder folder;
  const SafetensorsFile golden = SafetensorsFile::open(folder_of("siglip-vision-bf16/model.safetensors"));
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const auto& entry : golden.entries())
    tensors.emplace_back(entry.first.substr(std::string("vision_model.").size()),
                         golden.read(entry.first, Device::open("cpu")));
  write_safetensors(folder.file("model.safetensors"), tensors);
  copy_config(folder, "siglip-vision-bf16", nlohmann::json::object());
  Loaded loaded({folder.path(), {}});
  check_mapped(loaded.model.vision_encoder, "siglip-vision-bf16");
}

TEST_CASE("a vision tower may be that of a nanoVLM checkpoint, whatever stands behind it") {
  const Folder folder;
  VisionLanguageModel first(config_of({folder_of("siglip"), {}}), Device::open("cpu"));
  first.initialise(3);
  save_checkpoint(first, folder.path());

  Loaded taken({folder.path(), folder_of("llama")});
  CHECK(taken.model.config.vit_hidden_dim == 48);
  CHECK(numbers(taken.model.vision_encoder) == numbers(first.vision_encoder));
  check_mapped(taken.model.decoder, "llama");

  const Backbones larger_pictures = {folder.path(), {}, true};
  VLMConfig config = config_of(larger_pictures);
  config.vit_img_size = 64, config.IMAGE_TOKEN_LENGTH = 16;
  Loaded larger(larger_pictures, config);
  CHECK(larger.noted("Resized the position embedding from 4 x 4 to 8 x 8 patches (bicubic)"));

  config = config_of({folder.path(), {}});
  config.vit_n_blocks += 1;
  CHECK(message_of([&] {
          Loaded({folder.path(), {}}, config);
        }).find("vision_encoder.blocks.2.ln1.weight: missing, expected [48]") != std::string::npos);
}

TEST_CASE("every tensor of a language model is nanoVLM's, bit for bit, and so are its logits") {
  for (const std::string name : {"llama", "llama-bf16", "llama-sharded"}) {
    Loaded loaded({{}, folder_of(name)});
    check_mapped(loaded.model.decoder, name);
    check_logits(loaded.model.decoder, name);
    CHECK(loaded.notes.size() == 1);
  }
}

TEST_CASE("fp16 is widened exactly") {
  Loaded half({{}, folder_of("llama-f16")}), full({{}, folder_of("llama")});
  const auto theirs = numbers(full.model.decoder);
  for (const auto& [name, values] : numbers(half.model.decoder)) {
    INFO(name);
    CHECK(excess(values, theirs.at(name), 0x1p-25, 0x1p-11) <= 0);
    CHECK((name.find("norm") != name.npos || values != theirs.at(name)));
  }
}

TEST_CASE("a larger vocabulary keeps the file's rows and draws the others") {
  for (const std::string name : {"llama", "llama-sharded"}) {
    Loaded loaded({{}, folder_of(name)}, 103);
    if (name == "llama") check_logits(loaded.model.decoder, "llama-extended");
    const std::vector<float> rows = to_host(loaded.model.decoder.token_embedding);
    const auto known =
        SafetensorsFile::open(folder_of(name + ".mapped.safetensors")).read_f32("token_embedding.weight");
    REQUIRE(rows.size() == 103 * 48);
    CHECK(std::equal(known.begin(), known.end(), rows.begin()));
    const std::vector<float> drawn(rows.begin() + 97 * 48, rows.end());
    CHECK(l2(drawn) / std::sqrt(6 * 48.0) == Approx(0.02).epsilon(0.15));
    CHECK(loaded.noted("Extending token embeddings from 97 to 103"));
    CHECK(loaded.noted("Initialized 6 new token embeddings"));
  }
}

TEST_CASE("an untied head is read, or copied where the file has none") {
  Loaded untied({{}, folder_of("llama-untied")}, 97, false);
  check_mapped(untied.model.decoder, "llama-untied", {"head.weight"});  // nanoVLM leaves its head random
  const auto folder = SafetensorsFolder::open(folder_of("llama-untied"));
  CHECK(to_host(untied.model.decoder.head) == folder.find("lm_head.weight")->read_f32("lm_head.weight"));

  Loaded copied({{}, folder_of("llama")}, 97, false);
  CHECK(to_host(copied.model.decoder.head) == to_host(copied.model.decoder.token_embedding));
  CHECK(copied.noted("The file has no lm_head.weight: the untied head begins as a copy of the embedding"));
  check_logits(copied.model.decoder, "llama");

  Loaded tied({{}, folder_of("llama-untied")});
  CHECK(tied.noted("lm_head.weight is not read: lm_tie_weights makes the embedding the head"));
}

TEST_CASE("a position embedding is resized as PyTorch's bicubic interpolation does") {
  const SafetensorsFile golden = SafetensorsFile::open(folder_of("resized_positions.safetensors"));
  const Tensor positions = golden.read("positions", Device::open("cpu"));
  for (const int64_t side : {1, 3, 4, 5, 7, 16}) {
    INFO(side << " x " << side);
    const std::vector<float> expected = golden.read_f32(text("to_", side));
    CHECK(excess(to_host(resize_positions(positions, side * side)), expected, 1e-5 * largest(expected), 0) <= 0);
  }
  CHECK(to_host(resize_positions(positions, 16)) == to_host(positions));
  CHECK_THROWS_AS(resize_positions(positions, 15), Error);
}

TEST_CASE("another picture size keeps everything but the position embedding") {
  const Backbones backbones = {folder_of("siglip"), {}, true};
  VLMConfig config = config_of(backbones);
  config.vit_img_size = 64, config.IMAGE_TOKEN_LENGTH = 16;
  configure_from(backbones, config);
  CHECK(config.vit_img_size == 64);
  Loaded larger(backbones, config), plain({folder_of("siglip"), {}});
  const auto ours = numbers(larger.model.vision_encoder), theirs = numbers(plain.model.vision_encoder);
  for (const auto& [name, values] : theirs)
    if (name != "patch_embedding.position_embedding") CHECK(ours.at(name) == values);
  CHECK(ours.at("patch_embedding.position_embedding") ==
        to_host(resize_positions(plain.model.vision_encoder.patch_embedding.position_embedding, 64)));
  CHECK(larger.noted("Resized the position embedding from 4 x 4 to 8 x 8 patches (bicubic)"));
}

TEST_CASE("settings that this model does not compute are listed, all of them, and the configuration stays") {
  const Folder vision, language;
  copy_config(vision, "siglip",
              {{"vision_config", {{"hidden_act", "gelu"}, {"num_channels", 4}, {"patch_size", "8"}}}});
  copy_config(
      language, "llama",
      {{"attention_bias", true}, {"head_dim", 16}, {"rope_scaling", {{"rope_type", "yarn"}}}, {"vocab_size", 98}});
  VLMConfig config = config_of({});
  const std::string before = to_json_text(config);
  const std::string message = message_of([&] { configure_from({vision.path(), language.path()}, config); });
  for (const std::string expected :
       {"vision_config.hidden_act: expected \"gelu_pytorch_tanh\", found the string \"gelu\"",
        "vision_config.num_channels: expected 3, found 4", "vision_config.patch_size: expected an integer",
        "$.attention_bias: expected false, found true",
        "$.rope_scaling.rope_type: expected \"default\", found the string \"yarn\"",
        "lm_vocab_size is 97, but must be at least the file's vocab_size, 98",
        "$.head_dim: expected hidden_size / num_attention_heads = 8, found 16"}) {
    INFO(message);
    CHECK(message.find(expected) != message.npos);
  }
  CHECK(to_json_text(config) == before);

  copy_config(language, "llama", {{"model_type", "qwen3"}, {"num_hidden_layers", -1}});
  CHECK(message_of([&] {
          configure_from({{}, language.path()}, config);
        }).find("model_type: expected \"llama\"") != std::string::npos);
  copy_config(language, "llama", {{"num_hidden_layers", -1}});
  CHECK(message_of([&] {
          configure_from({{}, language.path()}, config);
        }).find("lm_n_blocks is -1") != std::string::npos);
  CHECK(message_of([&] {
          configure_from({"/no/such/folder", {}}, config);
        }).find("/no/such/folder/config.json") != std::string::npos);
}

TEST_CASE("weights that do not fit are listed for both folders, and nothing is loaded") {
  const Backbones good = {folder_of("siglip"), folder_of("llama")};
  VLMConfig config = config_of(good);
  config.vit_inter_dim = 64, config.vit_n_blocks = 3, config.vit_img_size = 40, config.IMAGE_TOKEN_LENGTH = 25;
  config.mp_pixel_shuffle_factor = 1;
  config.lm_n_blocks = 1, config.lm_vocab_size = 90;
  VisionLanguageModel model(config, Device::open("cpu"));
  model.initialise(1);
  const auto before = numbers(model);
  std::vector<std::string> notes;
  const std::string message = message_of([&] { load_backbones(good, model, 0, notes); });
  for (const std::string expected :
       {"siglip/model.safetensors: does not hold such a backbone:",
        "vision_model.encoder.layers.0.mlp.fc1.weight: shape is [80, 48], expected [64, 48]",
        "vision_model.encoder.layers.2.self_attn.q_proj.bias: missing, expected [48]",
        "llama/model.safetensors: does not hold such a backbone:",
        "model.embed_tokens.weight: shape is [97, 48], expected [90, 48], or fewer rows",
        "model.layers.1.mlp.gate_proj.weight: this model has no such parameter"}) {
    INFO(message);
    CHECK(message.find(expected) != message.npos);
  }
  CHECK(numbers(model) == before);
  CHECK(notes.empty());
}

TEST_CASE("a folder without weights, and shards that are not as their index says, are refused") {
  const Folder folder;
  const auto refusal = [&] { return message_of([&] { SafetensorsFolder::open(folder.path()); }); };
  CHECK(refusal() == folder.path() + ": expected model.safetensors or model.safetensors.index.json, found neither");
  CHECK(message_of([&] { SafetensorsFolder::open(folder.file("no")); }).ends_with("found no such folder"));

  const std::string index = "model.safetensors.index.json";
  for (const std::string name : {"../x", "/etc/passwd", "a/b", "", ".."}) {
    folder.write(index, nlohmann::json{{"weight_map", {{"w", name}}}}.dump());
    CHECK(refusal().find("$.weight_map.w: expected the name of a file in the same folder") != std::string::npos);
  }
  for (const std::string text : {"[]", "{}", R"({"weight_map": []})", R"({"weight_map": {"w": 1}})", "{"}) {
    folder.write(index, text);
    CHECK(refusal().find(index) != std::string::npos);
  }

  const std::string sharded = folder_of("llama-sharded") + "/";
  nlohmann::json good = nlohmann::json::parse(bytes_of(sharded + index));
  for (const std::string shard : {"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"})
    folder.write(shard, bytes_of(sharded + shard));
  folder.write("model-00003-of-00003.safetensors", "cut");
  good["weight_map"]["model.embed_tokens.weight"] = "model-00002-of-00003.safetensors";
  folder.write(index, good.dump());
  const std::string message = refusal();
  CHECK(message.find("model.embed_tokens.weight: expected in model-00002-of-00003.safetensors, but is not there") !=
        std::string::npos);
  CHECK(message.find("model-00003-of-00003.safetensors: byte 0") != std::string::npos);
  CHECK(std::count(message.begin(), message.end(), '\n') == 2);
}
