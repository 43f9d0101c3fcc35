// How a text is cut into words before byte-pair merging, as Hugging Face's pre-tokenizers Digits and ByteLevel do it.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "data/unicode.h"

namespace nanovlm {

// The length in bytes of the word that `text` begins with, by GPT-2's pattern, the first alternative that matches:
//     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// text is valid UTF-8 and not empty. Every character is part of some word, so the words tile the text.
size_t gpt2_word(std::string_view text, const CharacterClasses& classes);

struct PreTokenizer {
  enum class Digits { joined, isolated, contiguous };  // left in their words; each alone; runs of them alone

  Digits digits = Digits::joined;
  bool add_prefix_space = false;  // each piece that the digits leave begins with a space, added where missing
  bool use_regex = true;          // gpt2_word; else a piece is one word

  // A word: its bytes, and where they lie in the text. Bytes from `added` on are the text's; those before are an added
  // space (added is 0 or 1).
  struct Word {
    std::string_view bytes;
    size_t begin;
    size_t added;
  };

  // Calls on_word(const Word&) for each word of the text (valid UTF-8), in order. A word's bytes last as long as the
  // call.
  template <class F>
  void split(std::string_view text, F&& on_word) const {
    const CharacterClasses& classes = CharacterClasses::get();
    std::string spaced;
    for (size_t begin = 0; begin < text.size();) {
      const std::string_view piece = text.substr(begin, piece_size(text.substr(begin), classes));
      const size_t added = add_prefix_space && piece[0] != ' ' ? 1 : 0;
      std::string_view rest = piece;
      if (added) rest = spaced.assign(1, ' ').append(piece);
      for (size_t at = 0; !rest.empty();) {
        const size_t size = use_regex ? gpt2_word(rest, classes) : rest.size();
        const bool first = at == 0;
        on_word(Word{rest.substr(0, size), begin + (first ? 0 : at - added), first ? added : 0});
        rest.remove_prefix(size);
        at += size;
      }
      begin += piece.size();
    }
  }

 private:
  // The length of the piece that a text begins with: what Digits makes of it.
  size_t piece_size(std::string_view text, const CharacterClasses& classes) const;
};

}  // namespace nanovlm
