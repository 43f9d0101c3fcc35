#include "data/record.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <optional>

#include <nlohmann/json.hpp>

namespace nanovlm {
namespace {
namespace fs = std::filesystem;

constexpr int64_t kMaxLineBytes = int64_t{256} << 20;
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
  if (value.is_null()) return;
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
}  // namespace

const char* name_of(Fault fault) {
  constexpr const char* names[kFaults] = {"broken record",  "no text",   "no picture", "missing picture",
                                          "broken picture", "over-long", "no target"};
  return names[static_cast<int>(fault)];
}

Record parse_record(const JsonValue& value, const std::string& folder) {
  Record record;
  try {
    value.expect_object();
    if (value.find("question"))
      read_mmstar(value, folder, record);
    else
      read_cauldron(value, folder, record);
  } catch (const Error& error) {
    throw BadRecord(Fault::broken_record, error.what());
  }
  if (record.texts.empty()) throw BadRecord(Fault::no_text, value.place() + ".texts: expected a turn, found none");
  return record;
}

std::vector<uint8_t> picture_bytes(const Picture& picture, const std::string& place, const ImageLimits& limits) {
  if (!picture.bytes.empty()) return picture.bytes;
  try {
    return File::open_beneath(picture.folder, picture.path).read_all(limits.max_bytes);
  } catch (const Error& error) {
    throw BadRecord(Fault::missing_picture, text(place, ": picture ", error.what()));
  }
}

JsonLines::JsonLines(const std::string& path) : file_(File::open(path)) {
  folder_ = fs::canonical(fs::absolute(path).parent_path()).string();
  std::vector<char> block(static_cast<size_t>(std::min(kScanBytes, file_.size())));
  begins_.push_back(0);
  for (int64_t offset = 0; offset < file_.size(); offset += kScanBytes) {
    const int64_t bytes = std::min(kScanBytes, file_.size() - offset);
    file_.read(block.data(), bytes, offset);
    const char* end = block.data() + bytes;
    for (const char* at = block.data(); at < end; ++at) {
      at = static_cast<const char*>(std::memchr(at, '\n', static_cast<size_t>(end - at)));
      if (!at) break;
      begins_.push_back(offset + (at - block.data()) + 1);
    }
  }
  if (begins_.back() != file_.size()) begins_.push_back(file_.size());  // the last line has no end mark
}

std::string JsonLines::place(int64_t row) const { return text(file_.path(), ":", row + 1); }

Record JsonLines::read(int64_t row) const {
  const int64_t begin = begins_.at(static_cast<size_t>(row)), bytes = begins_.at(static_cast<size_t>(row) + 1) - begin;
  try {
    check(bytes <= kMaxLineBytes, place(row), ": expected a line of at most ", kMaxLineBytes, " bytes, found ", bytes);
    std::string line(static_cast<size_t>(bytes), '\0');
    file_.read(line.data(), bytes, begin);
    const nlohmann::json document = parse_json(line, place(row));
    return parse_record(JsonValue(document, place(row)), folder_);
  } catch (const BadRecord&) {
    throw;
  } catch (const Error& error) {
    throw BadRecord(Fault::broken_record, error.what());
  }
}

Concatenation::Concatenation(std::vector<std::unique_ptr<RecordSource>> parts) : parts_(std::move(parts)), begins_{0} {
  for (const auto& part : parts_) begins_.push_back(begins_.back() + part->size());
}

size_t Concatenation::part_of(int64_t row) const {
  return static_cast<size_t>(std::upper_bound(begins_.begin(), begins_.end(), row) - begins_.begin()) - 1;
}

Record Concatenation::read(int64_t row) const {
  const size_t part = part_of(row);
  return parts_[part]->read(row - begins_[part]);
}

std::string Concatenation::place(int64_t row) const {
  const size_t part = part_of(row);
  return parts_[part]->place(row - begins_[part]);
}

}  // namespace nanovlm
