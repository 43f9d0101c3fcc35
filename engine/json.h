// JSON that came from outside: a strict parser, and values that know their place so that every complaint can name it.
//
//     const nlohmann::json document = read_json_file("tokenizer.json");
//     const JsonValue root(document, "tokenizer.json");
//     root["model"]["type"].string();   // Error: tokenizer.json: $.model.type: expected a string, found 7
//
// Only json_fwd.hpp is included here: nlohmann/json.hpp costs seconds a translation unit. Users of JsonValue need not
// pay.
#pragma once
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <nlohmann/json_fwd.hpp>

namespace nanovlm {

// An object too large to be worth storing, such as a vocabulary, can be read member by member: `each` gets those of the
// object at `path` ("$.model.vocab"), in the file's order, and the document keeps it without them. Whether its keys
// differ is for `each` to see. A member that is an array or object may hold at most `max_inside` values, at all depths.
struct JsonMembers {
  std::string path;
  std::function<void(const std::string& key, const nlohmann::json& value)> each;
  int64_t max_inside = 0;  // 0: members must be plain values
};

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";  // UTF-8's

// Parses exactly one JSON value (RFC 8259, UTF-8). Refused with an Error that begins with `where`: syntax errors (with
// line and column), a byte order mark, invalid UTF-8, bytes after the value, a key that occurs twice in an object (with
// its path), more than 128 levels of nesting, numbers that overflow a double.
nlohmann::json parse_json(std::string_view text, const std::string& where, const JsonMembers& members = {});

// The same for a file. Error too if it can't be read, is no regular file, or holds more than max_bytes.
nlohmann::json read_json_file(const std::string& path, int64_t max_bytes = int64_t{256} << 20,
                              const JsonMembers& members = {});

// A value inside a document and its place ("file: $.model.merges[3]"). A view: the document must outlive it.
// Every getter throws Error "<place>: expected ..., found ..." when the value is not what is asked for.
class JsonValue {
 public:
  JsonValue(const nlohmann::json& document, const std::string& where) : value_(&document), place_(where + ": $") {}
  JsonValue(const nlohmann::json&& document, const std::string& where) = delete;  // it would not outlive this call

  // What JsonMembers hands over of the document's own members.
  JsonValue(const nlohmann::json& value, const std::string& where, std::string_view key);

  JsonValue operator[](std::string_view key) const;           // the value must be an object that has the key
  JsonValue at(int64_t index) const;                          // the value must be an array with more than index items
  std::optional<JsonValue> find(std::string_view key) const;  // of an object: empty if the key is absent or null
  int64_t array_size() const;
  void expect_object() const;

  bool is_null() const;
  bool is_string() const;
  bool is_array() const;
  bool is_object() const;

  bool boolean() const;
  double number() const;
  int64_t integer(int64_t min = std::numeric_limits<int64_t>::min(),
                  int64_t max = std::numeric_limits<int64_t>::max()) const;
  const std::string& string() const;

  const std::string& place() const { return place_; }
  const nlohmann::json& json() const { return *value_; }
  [[noreturn]] void refuse(std::string_view expected) const;  // fails with "<place>: expected <expected>, found <this>"

 private:
  struct Inside {};
  JsonValue(Inside, const nlohmann::json& value, std::string place) : value_(&value), place_(std::move(place)) {}

  const nlohmann::json* value_;
  std::string place_;
};

}  // namespace nanovlm
