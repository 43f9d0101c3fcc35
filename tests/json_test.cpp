// The checked JSON reader: what it accepts, and the exact words with which it refuses the rest.
#include "engine/json.h"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/messages.h"

using namespace nanovlm;
using nlohmann::json;

namespace {

std::string parse_message(std::string_view text) {
  return message_of([&] { parse_json(text, "f"); });
}

std::string nested(int levels) { return std::string(levels, '[') + std::string(levels, ']'); }

}  // namespace

TEST_CASE("parse_json builds the document that nlohmann builds") {
  for (const char* text :
       {"null", "true", " 1 ", "-7", "18446744073709551615", "0.5e-3", "\"\\u00e9\\ud83d\\ude00\"", "[]", "{}",
        "[1,[2,[3,{}]],\"x\"]", R"({"a":{"b":[{"c":null},{"c":1}]},"":false,"z":[[],{}]})"})
    CHECK(parse_json(text, "f") == json::parse(text));
  CHECK(parse_json(nested(128), "f") == json::parse(nested(128)));
}

TEST_CASE("parse_json says what is wrong and where") {
  CHECK(parse_message("") ==
        "f: 1:1: not valid JSON: unexpected end of input; expected '[', '{', or a literal, read ''");
  CHECK(parse_message("{\n  \"a\": 1,\n}").starts_with("f: 3:1: not valid JSON: unexpected '}'"));
  CHECK(parse_message("{\"a\": [1, 2").starts_with("f: 1:12: not valid JSON"));
  CHECK(parse_message("[1] x").starts_with("f: 1:5: not valid JSON"));
  CHECK(parse_message("[1][2]").starts_with("f: 1:4: not valid JSON"));
  CHECK(parse_message("[NaN]").starts_with("f: 1:2: not valid JSON"));
  CHECK(parse_message("[01]").starts_with("f: 1:3: not valid JSON"));
  CHECK(parse_message("[\"\\ud800\"]").starts_with("f: 1:9: not valid JSON"));
  CHECK(parse_message("[\"\xff\"]").starts_with("f: 1:3: not valid JSON"));
  CHECK(parse_message("[1e999]").starts_with("f: 1:6: not valid JSON"));
  CHECK(parse_message("// c\n1").starts_with("f: 1:1: not valid JSON"));
  const std::string digits(1'000'000, '9');
  CHECK(parse_message("[" + digits + "]") == text("f: 1:1000001: not valid JSON: number overflow parsing '",
                                                  digits.substr(0, 95), "..., read '", digits.substr(0, 60), "...'"));
  CHECK(parse_message(std::string("[1]\0[2]", 7)) == "f: 1:4: expected JSON, found a byte 0");
  CHECK(parse_message("\xEF\xBB\xBF{}") ==
        "f: 1:1: expected JSON, found a byte order mark (save the file without one)");
}

TEST_CASE("parse_json refuses a key that occurs twice and deep nesting, by path") {
  CHECK(parse_message(R"({"a":1,"b":2,"a":3})") == "f: $.a: expected each key once, found it twice");
  CHECK(parse_message(R"({"x":[0,{"k":{"y z":1,"y z":2}}]})") ==
        "f: $.x[1].k[\"y z\"]: expected each key once, found it twice");
  CHECK(parse_message(R"({"a":1,"\u0061":3})") == "f: $.a: expected each key once, found it twice");
  CHECK(parse_json(R"({"a":{"a":1},"b":{"a":1}})", "f")["b"]["a"] == 1);
  CHECK(parse_message(nested(129)).ends_with(": expected at most 128 levels of nesting, found more"));
  CHECK(parse_message(std::string(5'000'000, '[')).ends_with(": expected at most 128 levels of nesting, found more"));
}

TEST_CASE("members of one object can be handed over instead of stored") {
  std::string seen;
  const JsonMembers members{"$.m.v",
                            [&](const std::string& key, const json& value) { seen += key + "=" + value.dump() + ";"; }};
  const std::string text = R"({"v":{"x":1},"m":{"t":[{}],"v":{"b":1,"a":"s","b":null},"u":{"v":{"y":2}}},"w":3})";
  CHECK(parse_json(text, "f", members) ==
        json::parse(R"({"v":{"x":1},"m":{"t":[{}],"v":{},"u":{"v":{"y":2}}},"w":3})"));
  CHECK(seen == "b=1;a=\"s\";b=null;");
  CHECK(message_of([&] { parse_json(R"({"m":{"v":{"a":1,"b":[]}}})", "f", members); }) ==
        "f: $.m.v.b: expected a plain value, found an array or object");
  CHECK(parse_json(R"({"m":{"v":[1,{"a":2}]}})", "f", members)["m"]["v"][1]["a"] == 2);
}

TEST_CASE("members that are handed over may hold a number of values that the caller sets") {
  std::string seen;
  const auto add = [&](const std::string& key, const json& value) {
    seen += JsonValue(value, "f", key).place() + "=" + value.dump() + ";";
  };
  const JsonMembers members{"$", add, 3};
  CHECK(parse_json(R"({"a":[],"b":{"x":[1],"y":2},"a":null,"c d":[1,2,3]})", "f", members) == json::object());
  CHECK(seen == R"(f: $.a=[];f: $.b={"x":[1],"y":2};f: $.a=null;f: $["c d"]=[1,2,3];)");
  CHECK(message_of([&] { parse_json(R"({"a":[1],"b":[1,2,3,4]})", "f", members); }) ==
        "f: $.b: expected at most 3 values in it, found more");
  CHECK(message_of([&] { parse_json(R"({"a":{"x":[[[[]]]]}})", "f", members); }) ==
        "f: $.a: expected at most 3 values in it, found more");
  CHECK(message_of([&] { parse_json(R"({"a":{"x":1,"x":2}})", "f", members); }) ==
        "f: $.a.x: expected each key once, found it twice");
  CHECK(parse_json("[1,2,3,4]", "f", members) == json::parse("[1,2,3,4]"));
}

TEST_CASE("a JsonValue names its place, what was expected and what was found") {
  const json document = parse_json(
      R"({"a":{"list":[1,2.5,"x",true,null,[],{"k":1}],"odd key":"v"},"big":1e30,"u":18446744073709551615})", "f");
  const JsonValue root(document, "f");
  const JsonValue list = root["a"]["list"];

  CHECK(list.array_size() == 7);
  CHECK(list.at(0).integer() == 1);
  CHECK(list.at(0).integer(1, 1) == 1);
  CHECK(list.at(1).number() == 2.5);
  CHECK(list.at(2).string() == "x");
  CHECK(list.at(3).boolean());
  CHECK(list.at(4).is_null());
  CHECK(root["a"]["odd key"].place() == "f: $.a[\"odd key\"]");
  CHECK(!root.find("none"));
  CHECK(!list.at(6).find("j"));
  CHECK(list.at(6).find("k")->integer() == 1);

  CHECK(message_of([&] { root["none"]; }) == "f: $.none: expected a value, found no such key");
  CHECK(message_of([&] { list["k"]; }) == "f: $.a.list: expected an object, found an array of 7");
  CHECK(message_of([&] { list.at(7); }) == "f: $.a.list[7]: expected an item, found only 7");
  CHECK(message_of([&] { list.at(-1); }) == "f: $.a.list[-1]: expected an item, found only 7");
  CHECK(message_of([&] { root.at(0); }) == "f: $: expected an array, found an object with 3 keys");
  CHECK(message_of([&] { list.at(0).string(); }) == "f: $.a.list[0]: expected a string, found 1");
  CHECK(message_of([&] { list.at(2).integer(); }) == "f: $.a.list[2]: expected an integer, found the string \"x\"");
  CHECK(message_of([&] { list.at(1).integer(); }) == "f: $.a.list[1]: expected an integer, found 2.5");
  CHECK(message_of([&] { list.at(0).integer(2, 9); }) == "f: $.a.list[0]: expected an integer from 2 to 9, found 1");
  CHECK(message_of([&] { list.at(0).integer(9, 9); }) == "f: $.a.list[0]: expected 9, found 1");
  CHECK(message_of([&] { list.at(0).integer(2); }) == "f: $.a.list[0]: expected an integer of at least 2, found 1");
  CHECK(message_of([&] { list.at(4).boolean(); }) == "f: $.a.list[4]: expected true or false, found null");
  CHECK(message_of([&] { list.at(3).number(); }) == "f: $.a.list[3]: expected a number, found true");
  CHECK(message_of([&] { root["u"].integer(); }) == "f: $.u: expected an integer, found 18446744073709551615");
  CHECK(message_of([&] { root["big"].integer(); }) == "f: $.big: expected an integer, found 1e+30");
}

TEST_CASE("read_json_file names the file that it can't use") {
  const auto folder = std::filesystem::temp_directory_path() / ("nanovlm-json-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const std::string path = folder / "a.json";
  std::ofstream(path) << "{\"a\": 1}";

  CHECK(read_json_file(path)["a"] == 1);
  CHECK(message_of([&] { read_json_file(path, 7); }) == path + ": expected at most 7 bytes, found 8");
  CHECK(message_of([&] { read_json_file(folder); }) == folder.string() + ": expected a regular file, found a folder");
  CHECK(message_of([&] { read_json_file("/dev/null"); }) == "/dev/null: expected a regular file, found a device");
  CHECK(message_of([&] { read_json_file(folder / "no.json"); }) ==
        (folder / "no.json").string() + ": can't be opened: No such file or directory");
  std::filesystem::remove_all(folder);
}
