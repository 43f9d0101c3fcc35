// Safetensors: every dtype read, files written byte for byte as the safetensors package writes them, and every kind of
// damage named with its place.
#include "engine/safetensors.h"

#include <bit>
#include <filesystem>

#include <sys/stat.h>

#include "tests/support/catch.h"
#include "tests/support/folder.h"
#include "tests/support/memory_taken.h"
#include "tests/support/messages.h"

using namespace nanovlm;
namespace fs = std::filesystem;

namespace {
const std::string kFixtures = NANOVLM_FIXTURES "/safetensors/";

std::string file_of(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data_bytes, '\1');
}

std::vector<uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<uint32_t> bits;
  for (const float v : values) bits.push_back(std::bit_cast<uint32_t>(v));
  return bits;
}

// The data of a file whose tensors have these numbers.
std::vector<std::pair<std::string, Tensor>> tensors(const Device& device) {
  return {{"u8", from_host<uint8_t>({0, 128, 255}, {3}, device)},
          {"b", from_host<float>({1, 2, 3, -4, 5.5f, 6}, {2, 3}, device)},
          {"bf16", from_host<bf16>({bf16(1.f), bf16(-3.f), bf16(0.f)}, {3}, device)},
          {"i32", from_host<int32_t>({-1, 2147483647}, {2, 1}, device)},
          {"empty", empty({0, 4}, DType::f32, device)},
          {"a", from_host<float>({7}, {1}, device)}};
}
}  // namespace

TEST_CASE("every dtype of a file becomes the engine's nearest one") {
  const Device cpu = Device::open("cpu");
  const auto file = SafetensorsFile::open(kFixtures + "all_dtypes.safetensors");
  CHECK(file.metadata() == std::map<std::string, std::string>{{"by", "safetensors"}, {"format", "pt"}});
  CHECK(file.entries().size() == 13);
  CHECK(file.entry("f64").dtype == "F64");
  CHECK(file.entry("empty").shape == Shape{0, 4});

  CHECK(file.read("f32", cpu).shape() == Shape{2, 3});
  CHECK(to_host(file.read("f32", cpu)) == std::vector<float>{1, 2, 3, -4, 5.5f, 6});
  CHECK(file.read("bf16", cpu).dtype() == DType::bf16);
  CHECK(to_host(file.read("bf16", cpu)) == std::vector<float>{1, -3});
  CHECK(to_host(file.read("f64", cpu)) == std::vector<float>{1.5f, -2.25f, 0.1f});
  CHECK(bits_of(to_host(file.read("f16", cpu))) == std::vector<uint32_t>{0x00000000, 0x80000000, 0x33800000, 0xb87fc000,
                                                                         0x38800000, 0x3f800000, 0xc0000000, 0x477fe000,
                                                                         0x7f800000, 0xff800000, 0x3eaaa000});
  CHECK(to_host_i32(file.read("i64", cpu)) == std::vector<int32_t>{-7, 2147483647});
  CHECK(to_host_i32(file.read("i32", cpu)) == std::vector<int32_t>{-1, 2147483647});
  const Tensor u8 = file.read("u8", cpu), mask = file.read("bool", cpu);
  CHECK(std::vector<int>(u8.u8(), u8.u8() + 3) == std::vector<int>{0, 128, 255});
  CHECK(std::vector<int>(mask.u8(), mask.u8() + 2) == std::vector<int>{0, 1});
  CHECK(file.read("scalar", cpu).item() == 42);
  CHECK(file.read("empty", cpu).numel() == 0);
  CHECK(std::signbit(file.read_f32("na\u00efve \"name\"").at(0)));

  CHECK(file.read_i64("i64 too large") == std::vector<int64_t>{1, 2147483648});
  CHECK(file.read_i64("bool") == std::vector<int64_t>{0, 1});
  std::vector<std::byte> raw(3);
  file.read_into("u8", raw);
  CHECK(raw[1] == std::byte{128});
}

TEST_CASE("a tensor that can't be had is named") {
  const Device cpu = Device::open("cpu");
  const std::string path = kFixtures + "all_dtypes.safetensors";
  const auto file = SafetensorsFile::open(path);
  const auto place = [&](const char* name, int64_t value) {
    return text(path, ": tensor ", name, ": byte ", file.entry(name).begin + value);
  };
  CHECK(message_of([&] { file.read("x", cpu); }) == path + ": expected a tensor x, found none among its 13");
  CHECK(message_of([&] { file.read("i16", cpu); }) ==
        place("i16", 0) + ": expected F32, BF16, F16, F64, I32, I64, U8 or BOOL, found I16");
  CHECK(message_of([&] { file.read("i64 too large", cpu); }) ==
        place("i64 too large", 8) + ": expected a value that fits 32 bits, found 2147483648");
  CHECK(message_of([&] { file.read_f32("u8"); }) == place("u8", 0) + ": expected F32, BF16, F16 or F64, found U8");
  CHECK(message_of([&] { file.read_i64("f32"); }) == place("f32", 0) + ": expected I64, I32, U8 or BOOL, found F32");
  std::vector<std::byte> raw(2);
  CHECK(message_of([&] { file.read_into("u8", raw); }) == place("u8", 0) + ": expected a buffer of 3 bytes, found 2");
}

TEST_CASE("a written file equals the safetensors package's, byte for byte") {
  const Folder folder;
  folder.write("w", "something older");
  write_safetensors(folder.file("w"), tensors(Device::open("cpu")));
  CHECK(bytes_of(folder.file("w")) == bytes_of(kFixtures + "written.safetensors"));
  CHECK(std::distance(fs::directory_iterator(folder.path()), {}) == 1);

  write_safetensors(folder.file("none"), {}, {});
  CHECK(bytes_of(folder.file("none")) == file_of("{}      ", 0));
  CHECK(SafetensorsFile::open(folder.file("none")).entries().empty());
}

TEST_CASE("a write that fails leaves nothing behind") {
  const Folder folder;
  const Device cpu = Device::open("cpu");
  CHECK(message_of([&] { write_safetensors(folder.file("no/w"), tensors(cpu)); }) ==
        folder.file("no/w") + ": can't be created: No such file or directory");
  fs::create_directory(folder.file("d"));
  CHECK(message_of([&] { write_safetensors(folder.file("d"), tensors(cpu)); }) ==
        folder.file("d") + ": can't be renamed: Is a directory");
  const Tensor x = zeros({2, 2}, DType::f32, cpu);
  CHECK(message_of([&] {
          write_safetensors(folder.file("w"), {{"x", x}, {"x", x}});
        }) == folder.file("w") + ": tensor x: expected each name once, found it twice");
  CHECK(message_of([&] {
          write_safetensors(folder.file("w"), {{"x", x.slice(1, 0, 1)}});
        }) == folder.file("w") + ": tensor x: expected a contiguous tensor, found a strided view");
  CHECK(message_of([&] {
          write_safetensors(folder.file("w"), {{"__metadata__", x}});
        }) == folder.file("w") + ": a tensor can't be called __metadata__");
  CHECK(std::distance(fs::directory_iterator(folder.path()), {}) == 1);
}

TEST_CASE("a file cut anywhere is refused") {
  const Folder folder;
  const std::string whole = bytes_of(kFixtures + "written.safetensors");
  for (size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    folder.write("cut", whole.substr(0, size));
    CHECK_THROWS_AS(SafetensorsFile::open(folder.file("cut")), Error);
  }
  folder.write("long", whole + "x");
  const auto expected =
      text(": byte ", whole.size(), ": expected the end of the file after the last tensor, found 1 more bytes");
  CHECK(message_of([&] { SafetensorsFile::open(folder.file("long")); }) == folder.file("long") + expected);
}

TEST_CASE("a file that shrinks after it was opened is refused when read") {
  const Folder folder;
  const std::string path = folder.file("f");
  folder.write("f", bytes_of(kFixtures + "written.safetensors"));
  const auto file = SafetensorsFile::open(path);
  const auto& entry = file.entry("b");
  fs::resize_file(path, static_cast<uintmax_t>(entry.begin + 4));
  CHECK(message_of([&] { file.read("b", Device::open("cpu")); }) ==
        text(path, ": byte ", entry.begin, ": expected 24 bytes, found 4"));
}

TEST_CASE("every wrong header is refused with its place") {
  const Folder folder;
  const std::string path = folder.file("f");
  const auto refusal = [&](const std::string& bytes) {
    folder.write("f", bytes);
    const std::string message = message_of([&] { SafetensorsFile::open(path); });
    return message.starts_with(path + ": ") ? message.substr(path.size() + 2) : message;
  };
  const auto entry = [](const char* dtype, const char* shape, const char* offsets) {
    return text(R"("x":{"dtype":)", dtype, R"(,"shape":)", shape, R"(,"data_offsets":)", offsets, "}");
  };
  const auto header = [&](const char* dtype, const char* shape, const char* offsets) {
    return text("{", entry(dtype, shape, offsets), "}");
  };
  const auto f32 = [&](const char* shape, const char* offsets, size_t bytes) {
    return refusal(file_of(header(R"("F32")", shape, offsets), bytes));
  };

  SECTION("the length") {
    CHECK(refusal("1234567") == "byte 0: expected the header's length in 8 bytes, found a file of 7");
    CHECK(refusal(std::string("\x03\0\0\0\0\0\0\0{}", 10)) ==
          "byte 0: expected a header of at most 2 bytes (the file has 10), found the length 3");
    CHECK(refusal(std::string(8, '\xff') + "{}") ==
          "byte 0: expected a header of at most 2 bytes (the file has 10), found the length 18446744073709551615");
    CHECK(refusal(std::string(8, '\0')) == "byte 8: expected a header that begins with {, found none");
    CHECK(refusal(file_of(" {}", 0)) == "byte 8: expected a header that begins with {, found something else");
    CHECK(refusal(file_of("[]", 0)) == "byte 8: expected a header that begins with {, found something else");
  }
  SECTION("the JSON") {
    CHECK(refusal(file_of("{", 0)).starts_with("header: 1:"));
    CHECK(refusal(file_of("{\"\xff\":1}", 0)).starts_with("header: 1:"));
    CHECK(refusal(file_of("{}{}", 0)).starts_with("header: 1:"));
    CHECK(refusal(file_of(R"({"__metadata__":null})", 0)) == "no error");
    CHECK(refusal(file_of(R"({"__metadata__":{},"__metadata__":{}})", 0)) ==
          "header: $.__metadata__: expected each key once, found it twice");
    CHECK(refusal(file_of(R"({"__metadata__":{"a":"","a":""}})", 0)) ==
          "header: $.__metadata__.a: expected each key once, found it twice");
    CHECK(refusal(file_of(text("{", entry("\"U8\"", "[1]", "[0,1]"), ",", entry("\"U8\"", "[1]", "[0,1]"), "}"), 1)) ==
          "header: $.x: expected each key once, found it twice");
    CHECK(refusal(file_of(text("{\"x\":", std::string(200, '['), std::string(200, ']'), "}"), 0)).find("128 levels") !=
          std::string::npos);
    CHECK(refusal(file_of(R"({"__metadata__":{"a":1}})", 0)) == "header: $.__metadata__.a: expected a string, found 1");
    CHECK(refusal(file_of(R"({"__metadata__":[]})", 0)).starts_with("header: $.__metadata__: expected an object"));
    CHECK(refusal(file_of(R"({"x":1})", 0)).starts_with("header: $.x: expected an object"));
    CHECK(refusal(file_of(R"({"x":{"shape":[],"data_offsets":[0,4]}})", 4)).find("dtype") != std::string::npos);
    CHECK(refusal(file_of(R"({"x":{"dtype":"F32","data_offsets":[0,4]}})", 4)).find("shape") != std::string::npos);
    CHECK(refusal(file_of(R"({"x":{"dtype":"F32","shape":[1]}})", 4)).find("data_offsets") != std::string::npos);
  }
  SECTION("dtype and shape") {
    CHECK(refusal(file_of(header("\"F31\"", "[1]", "[0,4]"), 4)) ==
          "header: $.x.dtype: expected a dtype of the format, found the string \"F31\"");
    CHECK(refusal(file_of(header("null", "[1]", "[0,4]"), 4)).starts_with("header: $.x.dtype: expected a string"));
    CHECK(f32("4", "[0,4]", 4).starts_with("header: $.x.shape: expected an array"));
    CHECK(f32("[-1]", "[0,4]", 4) == "header: $.x.shape[0]: expected an integer of at least 0, found -1");
    CHECK(f32("[1.0]", "[0,4]", 4).starts_with("header: $.x.shape[0]: expected an integer"));
    CHECK(f32("[4294967296,4294967296]", "[0,0]", 0).starts_with("header: $.x.shape: expected a shape whose bits fit"));
    CHECK(f32("[2305843009213693952]", "[0,0]", 0).starts_with("header: $.x.shape: expected a shape whose bits fit"));
    CHECK(refusal(file_of(header("\"F4\"", "[3]", "[0,2]"), 2)) ==
          "header: $.x.shape: expected a shape that fills whole bytes with 4-bit values, found an array of 1");
    const auto sizes = [](int n) {
      std::string list = "[1";
      for (int i = 1; i < n; ++i) list += ",1";
      return list + "]";
    };
    CHECK(f32(sizes(64).c_str(), "[0,4]", 4) == "no error");
    CHECK(f32(sizes(65).c_str(), "[0,4]", 4) == "header: $.x.shape: expected at most 64 sizes, found an array of 65");
  }
  SECTION("offsets") {
    CHECK(f32("[1]", "[0]", 4).starts_with("header: $.x.data_offsets: expected a list of two offsets"));
    CHECK(f32("[1]", "[0,4,4]", 4).starts_with("header: $.x.data_offsets: expected a list of two offsets"));
    CHECK(f32("[1]", "[-4,0]", 4).starts_with("header: $.x.data_offsets[0]: expected an integer from 0 to 4"));
    CHECK(f32("[1]", "[4,0]", 4).starts_with("header: $.x.data_offsets[1]: expected "));
    CHECK(f32("[2]", "[0,8]", 4).starts_with("header: $.x.data_offsets[1]: expected an integer from 0 to 4, found 8"));
    CHECK(f32("[1]", "[0,18446744073709551615]", 4).starts_with("header: $.x.data_offsets[1]: expected an integer"));
    CHECK(
        f32("[1]", "[0,3]", 4).starts_with("header: $.x.data_offsets: expected 4 bytes for F32 [1] (3 given at byte "));
    CHECK(f32("[1]", "[1,5]", 5).find("expected it to begin at byte ") != std::string::npos);
  }
  SECTION("tiling") {
    const auto two = [&](const char* a, const char* b, size_t bytes) {
      return refusal(file_of(text(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":)", a,
                                  R"(},"b":{"dtype":"U8","shape":[2],"data_offsets":)", b, "}}"),
                             bytes));
    };
    const int64_t data = 8 + static_cast<int64_t>(std::string(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                                                              R"("b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})")
                                                      .size());
    CHECK(two("[0,2]", "[2,4]", 4) == "no error");
    CHECK(two("[2,4]", "[0,2]", 4) == "no error");
    CHECK(two("[0,2]", "[3,5]", 5) == text("tensor b: byte ", data + 3, ": expected it to begin at byte ", data + 2,
                                           ", where the tensor before it ends, found a hole"));
    CHECK(two("[0,2]", "[1,3]", 3) == text("tensor b: byte ", data + 1, ": expected it to begin at byte ", data + 2,
                                           ", where the tensor before it ends, found an overlap"));
    CHECK(two("[0,2]", "[0,2]", 2).find("found an overlap") != std::string::npos);
  }
}

TEST_CASE("a header takes little more memory than what is kept of it") {
  const Folder folder;
  const auto write = [&](const std::string& name, const std::string& head, const char* value, const char* tail) {
    std::string header = head;
    for (int i = 0; i < 200'000; ++i) header += text(i > 0 ? "," : "", '"', i, "\":", value);
    return folder.write(name, file_of(header + tail, 0));
  };
  // A document of either takes more than 100,000.
  const auto tensors = write("tensors", "{", R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})", "}");
  CHECK(kib_taken([&] { CHECK(SafetensorsFile::open(tensors).entries().size() == 200'000); }) < 70'000);

  const auto metadata = write("metadata", R"({"__metadata__":{)", "\"\"", "}}");
  CHECK(message_of([&] { SafetensorsFile::open(metadata); }) ==
        metadata + ": header: $.__metadata__: expected at most 65536 values in it, found more");
  const auto entry = write("entry", R"({"x":{)", "1", "}}");
  CHECK(message_of([&] { SafetensorsFile::open(entry); }) ==
        entry + ": header: $.x: expected at most 65536 values in it, found more");
}

TEST_CASE("what is no regular file is refused without waiting") {
  const Folder folder;
  CHECK(message_of([&] { SafetensorsFile::open(folder.file("no")); }) ==
        folder.file("no") + ": can't be opened: No such file or directory");
  CHECK(message_of([&] { SafetensorsFile::open(folder.path()); }) ==
        folder.path() + ": expected a regular file, found a folder");
  REQUIRE(mkfifo(folder.file("pipe").c_str(), 0600) == 0);
  CHECK(message_of([&] { SafetensorsFile::open(folder.file("pipe")); }) ==
        folder.file("pipe") + ": expected a regular file, found a pipe");
  CHECK(message_of([&] { SafetensorsFile::open("/dev/zero"); }) ==
        "/dev/zero: expected a regular file, found a device");
}
