#include "data/pre_tokenizer.h"

namespace nanovlm {
namespace {

// What the pattern tells apart. No character is of two of these classes.
uint8_t kind_of(char32_t code, const CharacterClasses& classes) { return classes[code] & (kLetter | kNumber | kSpace); }

// The end of the run of characters of one kind from `at` on.
size_t run_end(std::string_view text, size_t at, uint8_t kind, const CharacterClasses& classes) {
  while (at < text.size()) {
    const Character character = Character::at(text, at);
    if (kind_of(character.code, classes) != kind) break;
    at += character.size;
  }
  return at;
}

size_t contraction_size(std::string_view text) {
  if (text.size() < 2) return 0;
  if (std::string_view("stmd").find(text[1]) != std::string_view::npos) return 2;
  const std::string_view two = text.substr(1, 2);
  return two == "re" || two == "ve" || two == "ll" ? 3 : 0;
}

}  // namespace

size_t gpt2_word(std::string_view text, const CharacterClasses& classes) {
  if (text[0] == '\'')
    if (const size_t size = contraction_size(text)) return size;

  const Character first = Character::at(text, 0);
  const uint8_t kind = kind_of(first.code, classes);
  if (kind != kSpace) return run_end(text, first.size, kind, classes);
  if (text[0] == ' ' && text.size() > 1) {  // " ?": one space goes with the run after it
    const uint8_t next = kind_of(Character::at(text, 1).code, classes);
    if (next != kSpace) return run_end(text, 1, next, classes);
  }

  const size_t end = run_end(text, first.size, kSpace, classes);
  if (end == text.size()) return end;
  // \s+(?!\S) gives the last space of the run back to what follows, unless it is the only one: then \s+ takes it.
  const size_t last = end - Character::before(text, end).size;
  return last > 0 ? last : end;
}

size_t PreTokenizer::piece_size(std::string_view text, const CharacterClasses& classes) const {
  if (digits == Digits::joined) return text.size();
  const auto is_digit = [&](const Character& c) { return (classes[c.code] & kNumber) != 0; };
  const Character first = Character::at(text, 0);
  if (is_digit(first) && digits == Digits::isolated) return first.size;
  size_t end = first.size;
  while (end < text.size()) {
    const Character character = Character::at(text, end);
    if (is_digit(character) != is_digit(first)) break;
    end += character.size;
  }
  return end;
}

}  // namespace nanovlm
