#include "data/json_records.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>
#include <optional>

#include <nlohmann/json.hpp>

namespace nanovlm {
namespace {
namespace fs = std::filesystem;

constexpr int64_t kMaxRecordBytes = int64_t{256} << 20;
constexpr int64_t kScanBytes = int64_t{4} << 20;

// RFC 4648, with padding; nothing if the text is anything else.
std::optional<std::vector<uint8_t>> from_base64(std::string_view text) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::array<int8_t, 256> value;
  value.fill(-1);
  for (size_t i = 0; i < kDigits.size(); ++i) value[static_cast<uint8_t>(kDigits[i])] = static_cast<int8_t>(i);

  if (text.size() % 4 != 0) return std::nullopt;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  text.remove_suffix(padding);
  std::vector<uint8_t> bytes;
  bytes.reserve(text.size() / 4 * 3 + 2);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const int8_t digit = value[static_cast<uint8_t>(c)];
    if (digit < 0) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes.push_back(static_cast<uint8_t>(bits >> count));
  }
  return bytes;
}

void add_picture(const JsonValue& value, const std::string& folder, Record& record) {
  if (value.is_null()) {
    record.null_first |= record.images.empty();
    return;
  }
  Picture picture;
  if (value.is_string()) {
    picture.path = value.string();
  } else if (const auto bytes = value.find("bytes")) {
    auto decoded = from_base64(bytes->string());
    if (!decoded) bytes->refuse("base64");
    picture.bytes = std::move(*decoded);
  } else {
    picture.path = value["path"].string();
  }
  if (picture.bytes.empty()) picture.folder = folder;
  record.images.push_back(std::move(picture));
}

void read_cauldron(const JsonValue& value, const std::string& folder, Record& record) {
  if (const auto images = value.find("images"))
    for (int64_t i = 0; i < images->array_size(); ++i) add_picture(images->at(i), folder, record);
  const auto texts = value.find("texts");
  for (int64_t i = 0; texts && i < texts->array_size(); ++i) {
    const JsonValue turn = texts->at(i);
    const auto source = turn.find("source");
    record.texts.push_back({turn["user"].string(), turn["assistant"].string(), source ? source->string() : ""});
  }
}

void read_mmstar(const JsonValue& value, const std::string& folder, Record& record) {
  if (const auto image = value.find("image")) add_picture(*image, folder, record);
  record.texts.push_back({value["question"].string(), value["answer"].string(), ""});
}

std::string without_marks(std::string text) {
  constexpr std::string_view kMark = "<image>";
  for (size_t at; (at = text.find(kMark)) != text.npos;) {
    size_t begin = at, end = at + kMark.size();
    // The line that the mark stands on, or before, goes with it.
    if (end < text.size() && text[end] == '\n')
      ++end;
    else if (end == text.size() && begin > 0 && text[begin - 1] == '\n')
      --begin;
    text.erase(begin, end - begin);
  }
  return text;
}

void read_conversation(const JsonValue& messages, const char* role, const char* content, Record& record) {
  std::string question;
  bool asked = false;
  for (int64_t i = 0; i < messages.array_size(); ++i) {
    const JsonValue message = messages.at(i), who = message[role];
    const std::string& name = who.string();
    const std::string said = without_marks(message[content].string());
    if (name == "system" && !asked && record.texts.empty()) {
      question += said + "\n";
    } else if ((name == "human" || name == "user") && !asked) {
      question += said;
      asked = true;
    } else if ((name == "gpt" || name == "assistant") && asked) {
      record.texts.push_back({std::move(question), said, ""});
      question.clear();
      asked = false;
    } else {
      who.refuse(asked ? "an answer to the question before" : "a question");
    }
  }
  check(!asked, messages.place(), ": expected an answer to the last question, found none");
}

void read_conversation(const JsonValue& value, const std::string& folder, Record& record) {
  for (const char* key : {"image", "images"}) {
    const auto pictures = value.find(key);
    if (!pictures) continue;
    if (!pictures->is_array()) {
      add_picture(*pictures, folder, record);
      continue;
    }
    for (int64_t i = 0; i < pictures->array_size(); ++i) add_picture(pictures->at(i), folder, record);
  }
  if (const auto conversation = value.find("conversations"))
    read_conversation(*conversation, "from", "value", record);
  else
    read_conversation(value["messages"], "role", "content", record);
}

// Finds the elements of a JSON array without parsing them: what is inside brackets and what inside strings.
class ArrayScanner {
 public:
  explicit ArrayScanner(std::function<void(int64_t begin, int64_t end)> element) : element_(std::move(element)) {}

  // The next byte of the file.
  void take(char c, int64_t at) {
    if (in_string_) {
      if (escaped_)
        escaped_ = false;
      else if (c == '\\')
        escaped_ = true;
      else
        in_string_ = c != '"';
      return;
    }
    if (c == ' ' || c == '\n' || c == '\t' || c == '\r') return;
    check(!ended_, "byte ", at, ": expected nothing behind the array, found more");
    check(depth_ > 0 || c == '[', "byte ", at, ": expected an array of records, found ", one_character(c));
    const bool closes = c == ']' || c == '}';
    if (depth_ == 1 && (c == ',' || closes)) {
      if (begin_ >= 0 || c == ',') element_(begin_ >= 0 ? begin_ : at, at);
      begin_ = -1;
    } else if (depth_ == 1 && begin_ < 0) {
      begin_ = at;
    }
    depth_ += (c == '[' || c == '{') - closes;
    ended_ = depth_ == 0;
    in_string_ = c == '"';
  }

  bool ended() const { return ended_; }

 private:
  static std::string one_character(char c) {
    return nlohmann::json(std::string(1, c)).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  }

  std::function<void(int64_t, int64_t)> element_;
  int64_t depth_ = 0, begin_ = -1;
  bool in_string_ = false, escaped_ = false, ended_ = false;
};

// Where the text begins: editors and PowerShell put a byte order mark before it.
int64_t begin_of_text(const File& file) {
  std::string head(static_cast<size_t>(std::min<int64_t>(kByteOrderMark.size(), file.size())), '\0');
  file.read(head.data(), static_cast<int64_t>(head.size()), 0);
  return head == kByteOrderMark ? static_cast<int64_t>(head.size()) : 0;
}

// Calls f(bytes, offset) for the blocks of the file's text.
template <class F>
void for_each_block(const File& file, const F& f) {
  std::vector<char> block(static_cast<size_t>(std::min(kScanBytes, file.size())));
  for (int64_t offset = begin_of_text(file); offset < file.size(); offset += kScanBytes) {
    const int64_t bytes = std::min(kScanBytes, file.size() - offset);
    file.read(block.data(), bytes, offset);
    f(std::string_view(block.data(), static_cast<size_t>(bytes)), offset);
  }
}

}  // namespace

Record parse_record(const JsonValue& value, const std::string& folder) {
  Record record;
  try {
    value.expect_object();
    if (value.find("question"))
      read_mmstar(value, folder, record);
    else if (value.find("conversations") || value.find("messages"))
      read_conversation(value, folder, record);
    else
      read_cauldron(value, folder, record);
  } catch (const Error& error) {
    throw BadRecord(Fault::broken_record, error.what());
  }
  if (record.texts.empty()) throw BadRecord(Fault::no_text, value.place() + ".texts: expected a turn, found none");
  return record;
}

JsonRecords::JsonRecords(const std::string& path, const char* separator)
    : file_(File::open(path)),
      folder_(fs::canonical(fs::absolute(path).parent_path()).string()),
      separator_(separator) {}

Record JsonRecords::read(int64_t row) const {
  const auto [begin, bytes] = ranges_.at(static_cast<size_t>(row));
  try {
    check(bytes <= kMaxRecordBytes, place(row), ": expected a record of at most ", kMaxRecordBytes, " bytes, found ",
          bytes);
    std::string json(static_cast<size_t>(bytes), '\0');
    file_.read(json.data(), bytes, begin);
    const nlohmann::json document = parse_json(json, place(row));
    return parse_record(JsonValue(document, place(row)), folder_);
  } catch (const BadRecord&) {
    throw;
  } catch (const Error& error) {
    throw BadRecord(Fault::broken_record, error.what());
  }
}

JsonLines::JsonLines(const std::string& path) : JsonRecords(path, ":") {
  int64_t begin = begin_of_text(file_);
  bool blank = true;  // the line that begins there, so far
  const auto line_ends = [&](int64_t end) {
    if (blank)
      rows_before_blank_.push_back(size());
    else
      ranges_.push_back({begin, end - begin});
    begin = end;
    blank = true;
  };
  for_each_block(file_, [&](std::string_view block, int64_t offset) {
    for (size_t at = 0; at < block.size();) {
      const size_t end = std::min(block.find('\n', at), block.size());
      blank = blank && block.substr(at, end - at).find_first_not_of(" \t\r") == block.npos;
      at = end + 1;
      if (end < block.size()) line_ends(offset + static_cast<int64_t>(at));
    }
  });
  if (begin != file_.size()) line_ends(file_.size());  // the last line has no end mark
}

int64_t JsonLines::number(int64_t row) const {
  const auto blank = std::upper_bound(rows_before_blank_.begin(), rows_before_blank_.end(), row);
  return 1 + row + (blank - rows_before_blank_.begin());
}

JsonArray::JsonArray(const std::string& path) : JsonRecords(path, ": record ") {
  ArrayScanner scanner([&](int64_t begin, int64_t end) { ranges_.push_back({begin, end - begin}); });
  try {
    for_each_block(file_, [&](std::string_view block, int64_t offset) {
      for (const char c : block) scanner.take(c, offset++);
    });
    check(scanner.ended(), "expected an array of records that ends, found the end of the file");
  } catch (const Error& error) {
    fail(path, ": ", error.what());
  }
}

}  // namespace nanovlm
