#include "data/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <system_error>

#include "data/tokenizer_file.h"
#include "data/unicode.h"
#include "engine/error.h"

namespace nanovlm {
namespace {

// One call's work: the ids found so far, and room for a word's symbols that the next word uses again.
class Encoder {
 public:
  Encoder(const Tokenizer::Model& model, Tokenizer::Encoding& result) : model_(model), result_(result) {}

  // A stretch of the text that begins at byte `begin` of it and holds no added token.
  void stretch(std::string_view text, size_t begin) {
    model_.pre_tokenizer.split(text, [&](const PreTokenizer::Word& word) { encode(word, begin + word.begin); });
  }

  // An added token may lie in the white space that an rstrip before it took; the range keeps to what is left.
  void put(int32_t id, size_t begin, size_t end) {
    const size_t done = result_.offsets.empty() ? 0 : static_cast<size_t>(result_.offsets.back().second);
    begin = std::max(begin, done);
    result_.ids.push_back(id);
    result_.offsets.emplace_back(static_cast<int>(begin), static_cast<int>(std::max(begin, end)));
  }

 private:
  // `begin` is where the word's first byte (or the space added to it) lies in the text.
  void encode(const PreTokenizer::Word& word, size_t begin) {
    const auto put_at = [&](int32_t id, size_t from, size_t to) {
      const auto place = [&](size_t byte) { return begin + (byte > word.added ? byte - word.added : 0); };
      put(id, place(from), place(to));
    };
    if (!model_.id_of_word.empty()) {
      const auto whole = model_.id_of_word.find(std::string(word.bytes));
      if (whole != model_.id_of_word.end()) return put_at(whole->second, 0, word.bytes.size());
    }
    symbols_of(word.bytes);
    model_.merger.apply(symbols_);
    for (const Symbol& symbol : symbols_) put_at(symbol.id, symbol.begin, symbol.end);
  }

  // Bytes without a token are left out or replaced before the merges, so that their neighbours may be joined.
  void symbols_of(std::string_view bytes) {
    symbols_.clear();
    bool unknown_before = false;
    for (int32_t i = 0; i < static_cast<int32_t>(bytes.size()); ++i) {
      const int32_t id = model_.id_of_byte[static_cast<uint8_t>(bytes[i])];
      if (id >= 0)
        symbols_.push_back({id, i, i + 1});
      else if (unknown_before && model_.fuse_unknown)
        symbols_.back().end = i + 1;
      else if (model_.unknown)
        symbols_.push_back({*model_.unknown, i, i + 1});
      unknown_before = id < 0 && model_.unknown;
    }
  }

  const Tokenizer::Model& model_;
  Tokenizer::Encoding& result_;
  std::vector<Symbol> symbols_;
};

}  // namespace

Tokenizer Tokenizer::load(const std::string& path) {
  const std::filesystem::path given(path);
  std::error_code ignored;  // what can't be examined is refused when it is opened
  const std::string file = std::filesystem::is_directory(given, ignored) ? (given / "tokenizer.json").string() : path;
  return Tokenizer(std::make_shared<const Model>(read_tokenizer_file(file)));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const { return encode_with_offsets(text).ids; }

Tokenizer::Encoding Tokenizer::encode_with_offsets(std::string_view text) const {
  check(text.size() <= static_cast<size_t>(std::numeric_limits<int>::max()), "tokenizer: the text has ", text.size(),
        " bytes, but at most ", std::numeric_limits<int>::max(), " are supported");
  const size_t invalid = find_invalid_utf8(text);
  check(invalid == std::string_view::npos, "tokenizer: expected a text in UTF-8, found an invalid sequence at byte ",
        invalid);

  Encoding result;
  Encoder encoder(*model_, result);
  for (const auto& part : model_->added.split(text)) {
    if (part.id >= 0) {
      encoder.put(part.id, part.begin, part.end);
      continue;
    }
    const std::string_view stretch = text.substr(part.begin, part.end - part.begin);
    for (const auto& inner : model_->added_normalized.split(stretch)) {
      if (inner.id >= 0)
        encoder.put(inner.id, part.begin + inner.begin, part.begin + inner.end);
      else
        encoder.stretch(stretch.substr(inner.begin, inner.end - inner.begin), part.begin + inner.begin);
    }
  }
  return result;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string bytes;
  bool first = true;
  for (const int32_t id : ids) {
    const size_t index = checked(id);
    if (skip_special_tokens && model_->special[index]) continue;
    if (!model_->byte_level_decoder && !first) bytes += ' ';
    bytes += model_->bytes[index];
    first = false;
  }
  return replace_invalid_utf8(bytes);
}

size_t Tokenizer::checked(int32_t id) const {
  check(id >= 0 && id < vocab_size(), "tokenizer: expected ids from 0 to ", vocab_size() - 1, ", found ", id);
  return static_cast<size_t>(id);
}

std::string Tokenizer::piece(int32_t id) const { return model_->pieces[checked(id)]; }

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(model_->pieces.size()); }

std::optional<int32_t> Tokenizer::token_to_id(std::string_view piece) const {
  const auto found = model_->id_of_piece.find(piece);
  if (found == model_->id_of_piece.end()) return std::nullopt;
  return found->second;
}

bool Tokenizer::is_special(int32_t id) const { return model_->special[checked(id)]; }

}  // namespace nanovlm
