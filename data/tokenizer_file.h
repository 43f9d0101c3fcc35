// A tokenizer.json, read and checked: what data/tokenizer.cpp works with.
#pragma once
#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/added_tokens.h"
#include "data/byte_pair_merger.h"
#include "data/pre_tokenizer.h"
#include "data/tokenizer.h"

namespace nanovlm {

struct Tokenizer::Model {
  Model() = default;
  Model(Model&&) = default;  // not copied: id_of_piece looks into pieces

  std::deque<std::string> pieces;  // by id; a deque, since id_of_piece holds views into it while it grows
  std::unordered_map<std::string_view, int32_t> id_of_piece;
  std::vector<bool> special;  // by id

  AddedTokens added;             // matched in the text first
  AddedTokens added_normalized;  // then those marked normalized, in what is left
  PreTokenizer pre_tokenizer;

  std::array<int32_t, 256> id_of_byte;  // -1: the vocabulary lacks the byte
  std::optional<int32_t> unknown;       // stands for such a byte
  bool fuse_unknown = false;            // one for a run of them
  BytePairMerger merger{0};
  std::unordered_map<std::string, int32_t>
      id_of_word;  // by bytes; filled only if a whole word needs no merges (ignore_merges)

  std::vector<std::string> bytes;  // by id: what the decoder makes of the piece
  bool byte_level_decoder = true;  // else pieces are joined by spaces, as they are
};

// Error: file, place, expected and found.
Tokenizer::Model read_tokenizer_file(const std::string& path);

}  // namespace nanovlm
