#include "data/tokenizer_file.h"

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <utility>

#include <nlohmann/json.hpp>

#include "data/unicode.h"
#include "engine/error.h"
#include "engine/json.h"

namespace nanovlm {
namespace {

using Model = Tokenizer::Model;

constexpr int64_t kMaxFileBytes = int64_t{256} << 20;

// ---- The GPT-2 byte alphabet: a visible character for each byte, so that pieces are text.

constexpr char32_t kAlphabetEnd = 0x144;

struct ByteAlphabet {
  std::array<char32_t, 256> character;
  std::array<int, kAlphabetEnd> byte;  // -1: no byte's character

  // The printable characters of Latin-1 stand for themselves; the other bytes, in order, for 0x100 and on.
  ByteAlphabet() {
    byte.fill(-1);
    char32_t spare = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool visible = (b >= '!' && b <= '~') || (b >= 0xA1 && b != 0xAD);
      character[b] = visible ? static_cast<char32_t>(b) : spare++;
      byte[character[b]] = b;
    }
  }

  // The bytes that a piece stands for; nothing if it has a character outside the alphabet.
  std::optional<std::string> bytes_of(std::string_view piece) const {
    std::string bytes;
    for (size_t i = 0; i < piece.size();) {
      const Character character = Character::at(piece, i);
      if (character.code >= kAlphabetEnd || byte[character.code] < 0) return std::nullopt;
      bytes.push_back(static_cast<char>(byte[character.code]));
      i += character.size;
    }
    return bytes;
  }
};

// ---- Small things every section needs

// A setting that is not known here may change ids; one that is null or false is off.
void expect_only(const JsonValue& object, std::initializer_list<std::string_view> known) {
  object.expect_object();
  for (const auto& [key, value] : object.json().items()) {
    const bool is_known = std::find(known.begin(), known.end(), key) != known.end();
    if (!is_known && !value.is_null() && value != false) object[key].refuse("no setting of this name (not supported)");
  }
}

bool flag(const JsonValue& object, std::string_view key, bool otherwise) {
  const auto value = object.find(key);
  return value ? value->boolean() : otherwise;
}

// The piece gets the next id; false if it has one.
bool add_piece(const std::string& piece, Model& model) {
  const auto id = static_cast<int32_t>(model.pieces.size());
  model.special.push_back(false);
  return model.id_of_piece.emplace(model.pieces.emplace_back(piece), id).second;
}

// ---- model

// The members of $.model.vocab as the file has them: a piece and its id.
class Vocabulary {
 public:
  explicit Vocabulary(const std::string& where) : where_(where) {}

  JsonMembers members() {
    return {"$.model.vocab", [this](const std::string& piece, const nlohmann::json& id) { add(piece, id); }};
  }

  // Gives the pieces their ids in the model: each from 0 to their number, once.
  void number(Model& model) const {
    if (entries_.empty()) fail(where_, ": $.model.vocab: expected at least one token, found none");
    const auto n = static_cast<int64_t>(entries_.size());
    std::vector<const Entry*> by_id(entries_.size());
    for (const Entry& entry : entries_) {
      if (entry.id >= n) refuse(entry, text("an integer from 0 to ", n - 1));
      const Entry*& slot = by_id[static_cast<size_t>(entry.id)];
      if (slot) refuse(entry, "an id of its own");
      slot = &entry;
    }
    // In the order of ids, which is that of the merges: what is looked up together lies together.
    model.id_of_piece.reserve(entries_.size());
    for (const Entry* entry : by_id)
      if (!add_piece(entry->piece, model)) refuse(*entry, "each piece once");
  }

 private:
  struct Entry {
    std::string piece;
    int64_t id;
  };

  void add(const std::string& piece, const nlohmann::json& id) {
    const bool is_id = id.is_number_unsigned() && id.get<uint64_t>() <= std::numeric_limits<int32_t>::max();
    if (!is_id) refuse(piece, id, "an integer from 0 on");
    entries_.push_back({piece, id.get<int64_t>()});
  }

  // As if the vocabulary had been kept in the document.
  [[noreturn]] void refuse(const std::string& piece, const nlohmann::json& id, const std::string& expected) const {
    const nlohmann::json document = {{"model", {{"vocab", {{piece, id}}}}}};
    JsonValue(document, where_)["model"]["vocab"][piece].refuse(expected);
  }
  [[noreturn]] void refuse(const Entry& entry, const std::string& expected) const {
    refuse(entry.piece, entry.id, expected);
  }

  const std::string& where_;
  std::vector<Entry> entries_;
};

// "a b" or ["a", "b"].
std::pair<std::string_view, std::string_view> merge_parts(const JsonValue& merges, int64_t index) {
  const auto& item = merges.json()[static_cast<size_t>(index)];
  if (item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string())
    return {item[0].get_ref<const std::string&>(), item[1].get_ref<const std::string&>()};
  if (item.is_string()) {
    const std::string_view both = item.get_ref<const std::string&>();
    const size_t space = both.find(' ');
    if (space != both.npos && both.find(' ', space + 1) == both.npos)
      return {both.substr(0, space), both.substr(space + 1)};
  }
  merges.at(index).refuse("two pieces, as \"a b\" or [\"a\", \"b\"]");
}

void read_merges(const JsonValue& merges, Model& model) {
  const int64_t n = merges.array_size();
  model.merger = BytePairMerger(n);
  std::string joined;
  const auto id_of = [&](std::string_view piece, int64_t index) {
    const auto found = model.id_of_piece.find(piece);
    check(found != model.id_of_piece.end(), merges.place(), "[", index,
          "]: expected pieces of the vocabulary, found \"", piece, "\", which it lacks");
    return found->second;
  };
  for (int64_t i = 0; i < n; ++i) {
    const auto [left, right] = merge_parts(merges, i);
    joined.assign(left).append(right);
    const Merge merge{static_cast<int32_t>(i), id_of(joined, i)};
    if (!model.merger.add(id_of(left, i), id_of(right, i), merge)) merges.at(i).refuse("each merge once");
  }
}

void read_model(const JsonValue& json, const Vocabulary& vocabulary, const ByteAlphabet& alphabet, Model& model) {
  if (const auto type = json.find("type"); type && type->string() != "BPE")
    type->refuse("\"BPE\" (no other model is supported)");
  expect_only(json, {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                     "ignore_merges", "vocab", "merges"});
  if (const auto dropout = json.find("dropout"); dropout && dropout->number() != 0) dropout->refuse("no dropout");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (const auto value = json.find(affix); value && !value->string().empty())
      value->refuse("no affix (not supported)");

  json["vocab"].expect_object();
  vocabulary.number(model);
  read_merges(json["merges"], model);
  for (int b = 0; b < 256; ++b) {
    std::string piece;
    append_utf8(piece, alphabet.character[b]);
    const auto found = model.id_of_piece.find(piece);
    model.id_of_byte[b] = found == model.id_of_piece.end() ? -1 : found->second;
  }

  model.fuse_unknown = flag(json, "fuse_unk", false);
  if (const auto unknown = json.find("unk_token")) {
    const auto found = model.id_of_piece.find(unknown->string());
    if (found == model.id_of_piece.end()) unknown->refuse("a piece of the vocabulary");
    model.unknown = found->second;
  }
  if (flag(json, "ignore_merges", false))
    for (const auto& [piece, id] : model.id_of_piece)
      if (auto bytes = alphabet.bytes_of(piece)) model.id_of_word.emplace(std::move(*bytes), id);
}

// ---- added_tokens

void read_added_tokens(const JsonValue& list, Model& model) {
  std::vector<bool> taken(model.pieces.size());
  for (int64_t i = 0, n = list.array_size(); i < n; ++i) {
    const JsonValue json = list.at(i);
    expect_only(json, {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    const std::string& content = json["content"].string();
    if (content.empty()) json["content"].refuse("at least one character");

    // A token that the vocabulary has keeps its id; the others follow after it, in order.
    const auto next = static_cast<int32_t>(model.pieces.size());
    const auto known = model.id_of_piece.find(content);
    const int32_t id = known == model.id_of_piece.end() ? next : known->second;
    json["id"].integer(id, id);
    if (id == next) {
      add_piece(content, model);
      taken.push_back(false);
    }
    if (taken[id]) json["content"].refuse("each added token once");
    taken[id] = true;
    model.special[id] = json["special"].boolean();
    const AddedToken token{id, json["single_word"].boolean(), json["lstrip"].boolean(), json["rstrip"].boolean()};
    (json["normalized"].boolean() ? model.added_normalized : model.added).add(content, token);
  }
}

// ---- pre_tokenizer, post_processor, decoder

void expect_byte_level(const JsonValue& json) {
  if (json["type"].string() != "ByteLevel") json["type"].refuse("\"ByteLevel\"");
  expect_only(json, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
  flag(json, "trim_offsets", true);  // checked, but it changes no id and no text
}

void append_steps(const JsonValue& json, std::vector<JsonValue>& steps) {
  if (json["type"].string() != "Sequence") return steps.push_back(json);
  expect_only(json, {"type", "pretokenizers"});
  const JsonValue parts = json["pretokenizers"];
  for (int64_t i = 0, n = parts.array_size(); i < n; ++i) append_steps(parts.at(i), steps);
}

// Any number of Digits, then ByteLevel, which turns text into bytes and so must come last.
PreTokenizer read_pre_tokenizer(const JsonValue& json) {
  PreTokenizer result;
  std::vector<JsonValue> steps;
  append_steps(json, steps);
  if (steps.empty()) json.refuse("a pre-tokenizer ByteLevel");
  for (size_t i = 0; i + 1 < steps.size(); ++i) {
    const JsonValue& step = steps[i];
    if (step["type"].string() != "Digits") step["type"].refuse("\"Digits\", which alone is supported before ByteLevel");
    expect_only(step, {"type", "individual_digits"});
    const bool isolated = step["individual_digits"].boolean() || result.digits == PreTokenizer::Digits::isolated;
    result.digits = isolated ? PreTokenizer::Digits::isolated : PreTokenizer::Digits::contiguous;
  }
  expect_byte_level(steps.back());
  result.add_prefix_space = steps.back()["add_prefix_space"].boolean();
  result.use_regex = flag(steps.back(), "use_regex", true);
  return result;
}

void read_decoder(const JsonValue& root, const ByteAlphabet& alphabet, Model& model) {
  const auto json = root.find("decoder");
  if (json) expect_byte_level(*json);
  model.byte_level_decoder = json.has_value();
  model.bytes.reserve(model.pieces.size());
  for (const std::string& piece : model.pieces)
    model.bytes.push_back(json ? alphabet.bytes_of(piece).value_or(piece) : piece);
}

}  // namespace

Model read_tokenizer_file(const std::string& path) {
  Vocabulary vocabulary(path);
  const nlohmann::json document = read_json_file(path, kMaxFileBytes, vocabulary.members());
  const JsonValue root(document, path);
  root.expect_object();
  if (const auto version = root.find("version"); version && version->string() != "1.0") version->refuse("\"1.0\"");
  if (const auto normalizer = root.find("normalizer"))
    (*normalizer)["type"].refuse("no normalizer (none is supported)");
  for (const char* key : {"truncation", "padding"})
    if (const auto value = root.find(key)) value->refuse("null (not supported)");
  if (const auto post_processor = root.find("post_processor")) expect_byte_level(*post_processor);

  Model model;
  const ByteAlphabet alphabet;
  read_model(root["model"], vocabulary, alphabet, model);
  if (const auto added = root.find("added_tokens")) read_added_tokens(*added, model);
  model.pre_tokenizer = read_pre_tokenizer(root["pre_tokenizer"]);
  read_decoder(root, alphabet, model);
  return model;
}

}  // namespace nanovlm
