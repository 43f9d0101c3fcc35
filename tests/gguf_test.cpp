// GGUF: numbers as llama.cpp's own Python package dequantises them, a folder as transformers would save it
// (tests/fixtures/gguf), and every kind of damage refused with its place.
#include "engine/gguf.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "data/gguf_tokenizer.h"
#include "data/prompt.h"
#include "engine/safetensors.h"
#include "model/gguf_import.h"
#include "tests/support/catch.h"
#include "tests/support/folder.h"
#include "tests/support/golden.h"
#include "tests/support/messages.h"

using namespace nanovlm;
using namespace nanovlm::testing;

namespace {

const std::string kTiny = fixture("gguf/tiny.gguf");

template <class T>
std::string le(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string string_bytes(const std::string& s) { return le(uint64_t{s.size()}) + s; }
std::string key(const std::string& name, uint32_t type, const std::string& value) {
  return string_bytes(name) + le(type) + value;
}
std::string tensor(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
  std::string bytes = string_bytes(name) + le(static_cast<uint32_t>(dims.size()));
  for (const uint64_t dim : dims) bytes += le(dim);
  return bytes + le(type) + le(offset);
}
// A file of these keys and tensors, padded to 32 bytes, with so many bytes of data.
std::string file_of(const std::vector<std::string>& keys, const std::vector<std::string>& tensors, size_t data_bytes) {
  std::string bytes = "GGUF" + le(uint32_t{3}) + le(uint64_t{tensors.size()}) + le(uint64_t{keys.size()});
  for (const std::string& one : keys) bytes += one;
  for (const std::string& one : tensors) bytes += one;
  bytes.resize((bytes.size() + 31) / 32 * 32, '\0');
  return bytes + std::string(data_bytes, '\1');
}

constexpr uint32_t kU8 = 0, kI8 = 1, kU32 = 4, kF32 = 6, kBool = 7, kString = 8, kArray = 9, kU64 = 10, kF64 = 12;

}  // namespace

TEST_CASE("every tensor's numbers are those of llama.cpp's package, bit for bit") {
  const GgufFile gguf = GgufFile::open(kTiny);
  const SafetensorsFile golden = SafetensorsFile::open(fixture("gguf/tiny.dequantised.safetensors"));
  REQUIRE(gguf.entries().size() == golden.entries().size());
  std::set<std::string> types;
  for (const auto& [name, entry] : gguf.entries()) {
    INFO(name << ", " << entry.type);
    types.insert(entry.type);
    CHECK(entry.shape == golden.entry(name).shape);
    CHECK(gguf.read_f32(name) == golden.read_f32(name));
  }
  CHECK(types == std::set<std::string>{"F16", "F32", "Q4_1", "Q8_0"});
}

TEST_CASE("metadata of every kind is read, and a wrong request says what is there") {
  const Folder folder;
  const std::string path = folder.file("f");
  folder.write("f",
               file_of({key("a", kU8, "\xff"), key("b", kI8, "\xff"), key("c", kBool, "\1"), key("d", kF32, le(0.5f)),
                        key("e", kF64, le(0.25)), key("f", kString, string_bytes("x")),
                        key("g", kU64, le(uint64_t{1} << 62)), key("h", kArray, le(kU8) + le(uint64_t{2}) + "\1\2"),
                        key("i", kArray, le(kString) + le(uint64_t{1}) + string_bytes("y"))},
                       {}, 0));
  const GgufFile gguf = GgufFile::open(path);
  CHECK(gguf.integer("a") == 255);
  CHECK(gguf.integer("b") == -1);
  CHECK(gguf.integer("c") == 1);
  CHECK(gguf.number("d") == 0.5);
  CHECK(gguf.number("e") == 0.25);
  CHECK(gguf.string("f") == "x");
  CHECK(gguf.integer("g") == int64_t{1} << 62);
  CHECK(gguf.integers("h") == std::vector<int64_t>{1, 2});
  CHECK(gguf.strings("i") == std::vector<std::string>{"y"});
  CHECK(message_of([&] { gguf.string("a"); }) == path + ": a: expected a string, found another kind of value");
  CHECK(message_of([&] { gguf.integer("z"); }) == path + ": expected the key z, found none");
  CHECK(message_of([&] { gguf.entry("w"); }) == path + ": expected a tensor w, found none among its 0");
}

TEST_CASE("a GGUF model becomes the folder that transformers would have saved") {
  const Folder folder;
  const GgufFile gguf = GgufFile::open(kTiny);
  GgufLanguageModel(gguf).write(folder.path());
  for (const auto& [name, contents] : tokenizer_files(gguf)) folder.write(name, contents);

  const SafetensorsFile ours = SafetensorsFile::open(folder.file("model.safetensors"));
  const SafetensorsFile golden = SafetensorsFile::open(fixture("gguf/tiny/model.safetensors"));
  CHECK(ours.entries().size() == golden.entries().size());
  for (const auto& [name, entry] : golden.entries()) {
    INFO(name);
    CHECK(ours.entry(name).dtype == "BF16");
    CHECK(ours.entry(name).shape == entry.shape);
    CHECK(ours.read_f32(name) == golden.read_f32(name));
  }

  const auto json = [](const std::string& path) { return nlohmann::json::parse(bytes_of(path)); };
  const auto config = json(folder.file("config.json")), expected = json(fixture("gguf/tiny/config.json"));
  for (const auto& [setting, value] : config.items()) {
    INFO(setting);
    CHECK(value == expected.at(setting));
  }
  for (const std::string name : {"tokenizer.json", "special_tokens_map.json"})
    CHECK(json(folder.file(name)) == json(fixture("gguf/tiny/" + name)));
  auto ours_config = json(folder.file("tokenizer_config.json")),
       golden_config = json(fixture("gguf/tiny/tokenizer_config.json"));
  CHECK(ours_config["model_max_length"] == 64);
  golden_config["model_max_length"] = 64;  // a constant in the script that made it
  CHECK(ours_config == golden_config);

  const PromptTokenizer tokenizer = PromptTokenizer::load(folder.path());
  CHECK(tokenizer.eos == "<|im_end|>");
  CHECK(tokenizer.tokenizer.encode("\"#$<|im_start|>") == std::vector<int32_t>{47, 6, 1});
}

TEST_CASE("a file cut anywhere is refused") {
  const Folder folder;
  const std::string whole = bytes_of(kTiny);
  for (size_t size = 0; size < whole.size(); size += size < 3000 ? 1 : 997) {
    CAPTURE(size);
    folder.write("cut", whole.substr(0, size));
    CHECK_THROWS_AS(GgufFile::open(folder.file("cut")), Error);
    std::filesystem::remove(folder.file("cut"));  // writing over a file waits for the disk
  }
}

TEST_CASE("a header with any byte changed is read or refused, never worse") {
  const Folder folder;
  std::string bytes = bytes_of(kTiny);
  for (size_t at = 0; at < 3000; ++at) {
    const char before = std::exchange(bytes[at], "\x00\xff\x09"[at % 3]);
    folder.write("f", bytes);
    try {
      const GgufFile gguf = GgufFile::open(folder.file("f"));
      for (const auto& entry : gguf.entries()) gguf.read_f32(entry.first);
    } catch (const Error&) {
    }
    std::filesystem::remove(folder.file("f"));
    bytes[at] = before;
  }
  SUCCEED();
}

TEST_CASE("every wrong header is refused with its place") {
  const Folder folder;
  const auto refusal = [&](const std::string& bytes) {
    folder.write("f", bytes);
    const std::string message = message_of([&] { GgufFile::open(folder.file("f")); });
    return message.starts_with(folder.file("f") + ": ") ? message.substr(folder.file("f").size() + 2) : message;
  };
  const auto refused = [&](const std::string& bytes, const std::string& part) {
    const std::string message = refusal(bytes);
    INFO(message);
    CHECK(message.find(part) != message.npos);
  };
  SECTION("frame") {
    CHECK(refusal("GGML" + std::string(20, '\0')) == "byte 0: expected the letters GGUF, found something else");
    CHECK(refusal("GGUF" + le(uint32_t{1}) + std::string(16, '\0')) == "byte 4: expected version 2 or 3, found 1");
    refused("GGUF" + le(uint32_t{3}) + le(~uint64_t{0}) + le(uint64_t{0}), "the number of tensors to be at most");
    refused("GGUF" + le(uint32_t{3}) + le(uint64_t{0}) + le(~uint64_t{0}), "the number of keys to be at most");
  }
  SECTION("keys") {
    refused(file_of({key("a", 13, "x")}, {}, 8), "expected the type of a plain value, found 13");
    refused(file_of({key("a", kBool, "\2")}, {}, 8), "expected a boolean, 0 or 1, found 2");
    refused(file_of({key("a", kU64, le(~uint64_t{0}))}, {}, 8), "expected an integer of at most 63 bits");
    refused(file_of({key("a", kU8, "1"), key("a", kU8, "1")}, {}, 8), "the key \"a\" once, found it twice");
    refused(file_of({le(~uint64_t{0}) + "a"}, {}, 8), "a key to be at most");
    refused(file_of({key("a", kString, le(uint64_t{1} << 40))}, {}, 8), "a string to be at most");
    refused(file_of({key("a", kArray, le(kU32) + le(uint64_t{1} << 61))}, {}, 64),
            "the length of an array to be at most");
    refused(file_of({key("a", kArray, le(kArray) + le(uint64_t{1}))}, {}, 64), "an array's plain values, found 9");
    refused(file_of({key("general.alignment", kU32, le(uint32_t{0}))}, {}, 8), "a multiple of 8 up to 65536, found 0");
    refused(file_of({key("general.alignment", kString, string_bytes("x"))}, {}, 8), "expected an integer");
  }
  SECTION("tensors") {
    const auto one = [&](const std::string& t, size_t bytes) { return file_of({}, {t}, bytes); };
    CHECK(refusal(one(tensor("w", {4}, 0, 0), 16)) == "no error");
    refused(one(tensor("w", {4}, 0, 0), 15), "tensor w: expected bytes ");
    refused(one(tensor("w", {4}, 2, 0), 16), "tensor w: expected type 0 F32, 1 F16, 3 Q4_1 or 8 Q8_0, found 2");
    refused(one(tensor("w", {}, 0, 0), 16), "tensor w: expected 1 to 4 dimensions, found 0");
    refused(one(tensor("w", {1, 1, 1, 1, 1}, 0, 0), 16), "tensor w: expected 1 to 4 dimensions, found 5");
    refused(one(tensor("w", {0}, 0, 0), 16), "dimensions of at least 1 whose product fits, found 0");
    refused(one(tensor("w", {uint64_t{1} << 40, uint64_t{1} << 40}, 0, 0), 16), "whose product fits");
    refused(one(tensor("w", {~uint64_t{0}}, 0, 0), 16), "whose product fits, found 18446744073709551615");
    refused(one(tensor("w", {48, 2}, 3, 0), 64), "rows of a multiple of 32 elements for Q4_1, found [2, 48]");
    refused(one(tensor("w", {4}, 0, 8), 64), "an offset that is a multiple of 32, found 8");
    refused(one(tensor("w", {4}, 0, uint64_t{1} << 63), 64), "an offset inside the file");
    refused(file_of({}, {tensor("a", {16}, 0, 0), tensor("b", {4}, 0, 32)}, 64), "tensor a, found an overlap");
    refused(file_of({}, {tensor("a", {4}, 0, 0), tensor("a", {4}, 0, 32)}, 64), "expected it once, found it twice");
  }
}

namespace {

// The message with which a changed file is refused.
std::string refusal_of(const std::string& bytes) {
  const Folder folder;
  folder.write("f", bytes);
  const std::string message = message_of([&] {
    const GgufFile gguf = GgufFile::open(folder.file("f"));
    const GgufLanguageModel model(gguf);
    tokenizer_files(gguf);
  });
  const std::string place = folder.file("f") + ": ";
  return message.starts_with(place) ? message.substr(place.size()) : message;
}

std::string replaced(std::string bytes, const std::string& from, const std::string& to) {
  REQUIRE(from.size() == to.size());
  for (size_t at = 0; (at = bytes.find(from, at)) != bytes.npos; at += to.size()) bytes.replace(at, to.size(), to);
  return bytes;
}

// With 4 bytes for the value of a key that has so many.
std::string with_value(std::string bytes, const std::string& name, const std::string& value) {
  const size_t at = bytes.find(string_bytes(name));
  REQUIRE((at != bytes.npos && value.size() == 4));
  return bytes.replace(at + 8 + name.size() + 4, 4, value);
}

// With another key in front, and one that keeps what follows in place modulo 32.
std::string with_key(std::string bytes, std::string one) {
  uint64_t keys = 0;
  std::copy_n(&bytes[16], sizeof keys, reinterpret_cast<char*>(&keys));
  bytes.replace(16, 8, le(keys + 2));
  const std::string filler = key("filler", kString, string_bytes(""));
  one += key("filler", kString, string_bytes(std::string(32 - (one.size() + filler.size()) % 32, 'x')));
  return bytes.insert(24, one);
}

}  // namespace

TEST_CASE("a file of another model or tokenizer is refused by name") {
  const std::string bytes = bytes_of(kTiny);
  CHECK(refusal_of(bytes) == "no error");
  const auto refused = [&](const std::string& changed, const std::string& part) {
    const std::string message = refusal_of(changed);
    INFO(message);
    CHECK(message.find(part) != message.npos);
  };
  refused(replaced(bytes, "llama", "qwen2"), "general.architecture: expected llama, found qwen2");
  refused(replaced(bytes, "smollm", "qwen-2"), "tokenizer.ggml.pre: expected smollm, found qwen-2");
  refused(replaced(bytes, "ffn_gate.", "ffn_bias."), "tensor blk.0.ffn_bias.weight: expected one of a Llama model");
  refused(replaced(bytes, "<|im_end|>", "<|im_end\xff>"), "expected texts in UTF-8");
  refused(replaced(bytes, "llama.embedding_length", "llama.embedding_lengtx"), "expected the key");
  refused(replaced(bytes, string_bytes("#") + string_bytes("$"), string_bytes("#") + string_bytes("#")),
          "tokenizer.ggml.tokens: expected each token once, found token ");

  for (const std::string merge : {"\" z", "z #", "\"##", "   "})
    refused(replaced(bytes, string_bytes("\" #"), string_bytes(merge)), "expected pairs of tokens that make a third");

  refused(with_value(bytes, "llama.block_count", le(uint32_t{2})), "expected a tensor blk.1.attn_k.weight, found none");
  refused(with_value(bytes, "llama.block_count", le(~uint32_t{0})), "llama.block_count: expected 1 to ");
  refused(with_value(bytes, "llama.feed_forward_length", le(uint32_t{8})), "ffn_down.weight: expected [");
  refused(with_value(bytes, "llama.rope.dimension_count", le(uint32_t{2})), "llama.rope.dimension_count: expected ");

  const std::string type = "llama.rope.scaling.type", factor = "llama.rope.scaling.factor";
  refused(with_key(bytes, key(type, kString, string_bytes("linear"))), type + ": expected none");
  refused(with_key(bytes, key(factor, kF32, le(2.0f))), factor + ": expected 1");
  CHECK(refusal_of(with_key(bytes, key(type, kString, string_bytes("none")))) == "no error");
  CHECK(refusal_of(with_key(bytes, key(factor, kF32, le(1.0f)))) == "no error");

  for (const float wrong : {std::nanf(""), -1.0f, HUGE_VALF})
    for (const std::string name : {"llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base"})
      refused(with_value(bytes, name, le(wrong)), name + ": expected a positive number");
}

TEST_CASE("a setting of many digits keeps them") {
  const Folder folder;
  folder.write("f", with_value(bytes_of(kTiny), "llama.rope.freq_base", le(1234567.0f)));
  GgufLanguageModel(GgufFile::open(folder.file("f"))).write(folder.file("new/folder"));
  CHECK(nlohmann::json::parse(bytes_of(folder.file("new/folder/config.json"))).at("rope_theta") == 1234567.0);
}

TEST_CASE("a file that is refused leaves no folder") {
  const Folder folder;
  folder.write("f", with_value(bytes_of(kTiny), "llama.block_count", le(uint32_t{2})));
  CHECK_THROWS_AS(GgufLanguageModel(GgufFile::open(folder.file("f"))).write(folder.file("new")), Error);
  CHECK_FALSE(std::filesystem::exists(folder.file("new")));
}
