#include "engine/json.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/file.h"

namespace nanovlm {
namespace {
using nlohmann::json;

constexpr size_t kMaxDepth = 128;
constexpr size_t kShownBytes = 60;    // of a value or key in a message
constexpr size_t kReasonBytes = 120;  // of nlohmann's messages, which may repeat a number of any length

// At most so many bytes of the text, cut between characters.
std::string shown(std::string_view text, size_t most = kShownBytes) {
  if (text.size() <= most) return std::string(text);
  size_t end = most;
  while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) --end;
  return std::string(text.substr(0, end)) + "...";
}

std::string described(const json& value) {
  if (value.is_object()) return text("an object with ", value.size(), value.size() == 1 ? " key" : " keys");
  if (value.is_array()) return text("an array of ", value.size());
  if (value.is_string()) return text("the string ", json(shown(value.get_ref<const std::string&>())).dump());
  return value.dump();
}

// A key as a path shows it: .name, or ["odd name"].
std::string key_step(std::string_view key) {
  bool plain = !key.empty();
  for (const char c : key) plain = plain && (std::isalnum(static_cast<unsigned char>(c)) || c == '_');
  if (plain) return text(".", shown(key));
  return text("[", json(shown(key)).dump(), "]");
}

std::string line_and_column(std::string_view text, size_t byte) {
  byte = std::min(byte, text.size());
  const std::string_view before = text.substr(0, byte);
  const auto lines = std::count(before.begin(), before.end(), '\n');
  const size_t start = before.rfind('\n') == before.npos ? 0 : before.rfind('\n') + 1;
  return nanovlm::text(lines + 1, ":", byte - start + 1);
}

// Builds the document from nlohmann's events. Its own builder keeps the last of two equal keys and has no depth limit.
class Builder final : public json::json_sax_t {
 public:
  Builder(std::string_view text, const std::string& where, const JsonMembers& members)
      : text_(text), where_(where), members_(members) {}

  json take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // never sent for text
  bool start_object(size_t) override { return open(json::object()); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(json::array()); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    if (handing_over()) {
      handed_key_ = std::move(name);
      keys_.back() = &handed_key_;
      return true;
    }
    const auto [place, is_new] = open_.back()->get_ref<json::object_t&>().emplace(std::move(name), nullptr);
    member_ = &place->second;
    keys_.back() = &place->first;
    if (!is_new) fail(where_, ": ", path(), ": expected each key once, found it twice");
    return true;
  }

  bool parse_error(size_t position, const std::string& token, const json::exception& error) override {
    // nlohmann's own message is "[name] head - reason; last read: 'token'; expected ...": head and token are left out.
    std::string_view reason = error.what(), expected;
    for (const char* head : {"] ", " - "})
      if (const size_t at = reason.find(head); at != reason.npos) reason.remove_prefix(at + std::strlen(head));
    const std::string echo = "; last read: '" + token + "'";
    if (const size_t at = reason.find(echo); at != reason.npos) {
      expected = reason.substr(at + echo.size());
      reason = reason.substr(0, at);
    }
    // position counts the bytes read, so the offending one is the last of them.
    fail(where_, ": ", line_and_column(text_, position > 0 ? position - 1 : 0),
         ": not valid JSON: ", printable(shown(reason, kReasonBytes)), printable(expected), ", read '",
         printable(shown(token)), "'");
  }

 private:
  bool handing_over() const { return !open_.empty() && open_.size() == handing_depth_; }

  bool put(json&& value) {
    if (handing_over()) {
      handed_ = std::move(value);
      last_ = &handed_;
      inside_ = 0;
      if (!handed_.is_structured()) members_.each(handed_key_, handed_);
      return true;
    }
    if (handing_depth_ > 0 && ++inside_ > members_.max_inside)
      fail(where_, ": ", members_.path, key_step(handed_key_), ": expected at most ", members_.max_inside,
           " values in it, found more");
    if (open_.empty()) {
      root_ = std::move(value);
      last_ = &root_;
    } else if (member_) {
      *member_ = std::move(value);
      last_ = std::exchange(member_, nullptr);
    } else {
      auto& items = open_.back()->get_ref<json::array_t&>();
      items.push_back(std::move(value));
      last_ = &items.back();
    }
    return true;
  }

  bool open(json&& container) {
    if (open_.size() == kMaxDepth)
      fail(where_, ": ", path(), ": expected at most ", kMaxDepth, " levels of nesting, found more");
    if (handing_over() && members_.max_inside == 0)
      fail(where_, ": ", path(), ": expected a plain value, found an array or object");
    put(std::move(container));
    if (members_.each && handing_depth_ == 0 && last_->is_object() && path() == members_.path)
      handing_depth_ = open_.size() + 1;
    open_.push_back(last_);
    keys_.push_back(nullptr);
    return true;
  }

  bool close() {
    if (handing_over()) handing_depth_ = 0;
    open_.pop_back();
    keys_.pop_back();
    if (handing_over()) members_.each(handed_key_, handed_);
    return true;
  }

  // The place of the value being read.
  std::string path() const {
    std::string result = "$";
    for (size_t i = 0; i < open_.size(); ++i) {
      if (keys_[i]) result += key_step(*keys_[i]);
      if (open_[i]->is_array()) result += nanovlm::text("[", open_[i]->size() - (i + 1 < open_.size() ? 1 : 0), "]");
    }
    return result;
  }

  // Bytes of the input may be anything; a message must be valid UTF-8.
  static std::string printable(std::string_view bytes) {
    return json::parse(json(bytes).dump(-1, ' ', false, json::error_handler_t::replace)).get<std::string>();
  }

  std::string_view text_;
  const std::string& where_;
  json root_;
  json* member_ = nullptr;   // the value that the last key announced
  json* last_ = nullptr;     // the value stored last
  std::vector<json*> open_;  // containers being read; an open one is the last of its parent, so it stays put
  std::vector<const std::string*> keys_;  // the last key read in each
  const JsonMembers& members_;
  size_t handing_depth_ = 0;  // containers open when the last one is the object that members_ gets
  std::string handed_key_;
  json handed_;         // a member's value, as far as it is read
  int64_t inside_ = 0;  // values read in it
};

}  // namespace

json parse_json(std::string_view text, const std::string& where, const JsonMembers& members) {
  check(!text.starts_with(kByteOrderMark), where,
        ": 1:1: expected JSON, found a byte order mark (save the file without one)");
  const size_t nul = text.find('\0');  // which nlohmann would take for the end
  check(nul == text.npos, where, ": ", line_and_column(text, nul), ": expected JSON, found a byte 0");
  Builder builder(text, where, members);
  json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

json read_json_file(const std::string& path, int64_t max_bytes, const JsonMembers& members) {
  const std::vector<uint8_t> bytes = File::open(path).read_all(max_bytes);
  return parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path, members);
}

JsonValue::JsonValue(const nlohmann::json& value, const std::string& where, std::string_view key)
    : value_(&value), place_(where + ": $" + key_step(key)) {}

JsonValue JsonValue::operator[](std::string_view key) const {
  expect_object();
  const auto found = value_->find(key);
  check(found != value_->end(), place_, key_step(key), ": expected a value, found no such key");
  return {Inside{}, *found, place_ + key_step(key)};
}

JsonValue JsonValue::at(int64_t index) const {
  check(index >= 0 && index < array_size(), place_, "[", index, "]: expected an item, found only ", array_size());
  return {Inside{}, (*value_)[static_cast<size_t>(index)], nanovlm::text(place_, "[", index, "]")};
}

std::optional<JsonValue> JsonValue::find(std::string_view key) const {
  expect_object();
  const auto found = value_->find(key);
  if (found == value_->end() || found->is_null()) return std::nullopt;
  return JsonValue(Inside{}, *found, place_ + key_step(key));
}

int64_t JsonValue::array_size() const {
  if (!value_->is_array()) refuse("an array");
  return static_cast<int64_t>(value_->size());
}

void JsonValue::expect_object() const {
  if (!value_->is_object()) refuse("an object");
}

bool JsonValue::is_null() const { return value_->is_null(); }
bool JsonValue::is_string() const { return value_->is_string(); }
bool JsonValue::is_array() const { return value_->is_array(); }
bool JsonValue::is_object() const { return value_->is_object(); }

bool JsonValue::boolean() const {
  if (!value_->is_boolean()) refuse("true or false");
  return value_->get<bool>();
}

double JsonValue::number() const {
  if (!value_->is_number()) refuse("a number");
  return value_->get<double>();
}

int64_t JsonValue::integer(int64_t min, int64_t max) const {
  constexpr int64_t kLowest = std::numeric_limits<int64_t>::min(), kHighest = std::numeric_limits<int64_t>::max();
  // What exceeds int64 arrives as unsigned or as a float.
  const bool fits = value_->is_number_integer() &&
                    !(value_->is_number_unsigned() && value_->get<uint64_t>() > static_cast<uint64_t>(kHighest));
  const int64_t found = fits ? value_->get<int64_t>() : 0;
  if (fits && found >= min && found <= max) return found;
  if (min == kLowest && max == kHighest) refuse("an integer");
  if (min == max) refuse(std::to_string(min));
  if (max == kHighest) refuse(nanovlm::text("an integer of at least ", min));
  refuse(nanovlm::text("an integer from ", min, " to ", max));
}

const std::string& JsonValue::string() const {
  if (!value_->is_string()) refuse("a string");
  return value_->get_ref<const std::string&>();
}

void JsonValue::refuse(std::string_view expected) const {
  fail(place_, ": expected ", expected, ", found ", described(*value_));
}

}  // namespace nanovlm
