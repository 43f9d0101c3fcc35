// Hugging Face's tokenizer.json, byte-level BPE (the GPT-2 family: SmolLM2, cosmo2, GPT-2, StarCoder): the same ids for
// any text as the `tokenizers` library (0.21), and the same text for any ids.
//
//   text -> added tokens are cut out -> Digits, ByteLevel cut the rest into words -> bytes of a word -> merges -> ids
//
// Every setting is read from the file. What is not supported (other models, pre-tokenizers, normalizers, ...) is
// refused by name when the file is loaded, since ignoring it would change ids.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nanovlm {

// Immutable and cheap to copy; all functions may be called from several threads at once.
class Tokenizer {
 public:
  // `path` is a tokenizer.json or a folder that holds one. Errors name file, place in the file, expected and found.
  static Tokenizer load(const std::string& path);

  // The ids of a text; special tokens are recognised inside it, none are added at its ends.
  // Error: the text is not valid UTF-8. A byte that has no token is left out where the file has no unk_token.
  std::vector<int32_t> encode(std::string_view text) const;

  // The same with the bytes [first, second) of the text that each id stands for. In order and without overlap; gaps are
  // bytes that have no token, and a space that add_prefix_space put in front has an empty range.
  struct Encoding {
    std::vector<int32_t> ids;
    std::vector<std::pair<int, int>> offsets;
  };
  Encoding encode_with_offsets(std::string_view text) const;

  // The text of the ids; invalid UTF-8, as a cut character leaves it, becomes U+FFFD, one for each maximal invalid
  // part. Error: an id that is not in [0, vocab_size()).
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = false) const;

  std::string piece(int32_t id) const;  // as the file has it: "Ġthe" for " the". Error as decode's
  int64_t vocab_size() const;           // with the added tokens; ids are [0, vocab_size())
  std::optional<int32_t> token_to_id(std::string_view piece) const;
  bool is_special(int32_t id) const;  // an added token marked special

  struct Model;  // what the file says; data/tokenizer_file.h

 private:
  explicit Tokenizer(std::shared_ptr<const Model> model) : model_(std::move(model)) {}
  size_t checked(int32_t id) const;

  std::shared_ptr<const Model> model_;
};

}  // namespace nanovlm
