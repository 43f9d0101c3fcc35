#include "data/multiple_choice.h"

#include <string>

#include "data/unicode.h"

namespace nanovlm {
namespace {
std::u32string characters_of(std::string_view text) {
  std::u32string characters;
  for (size_t at = 0; at < text.size();) {
    const Character c = Character::at(text, at);
    characters.push_back(c.code);
    at += static_cast<size_t>(c.size);
  }
  return characters;
}

// Python's \w: letters, numbers of any kind, and "_", but no marks.
bool is_word(char32_t c) { return c == U'_' || (CharacterClasses::get()[c] & (kLetter | kNumber)) != 0; }

// \b between the characters before and at `at`.
bool is_boundary(const std::u32string& s, size_t at) {
  return (at > 0 && is_word(s[at - 1])) != (at < s.size() && is_word(s[at]));
}

bool matches_at(const std::u32string& s, size_t at, const std::u32string& answer) {
  if (answer.size() > s.size() - at) return false;
  for (size_t i = 0; i < answer.size(); ++i)
    if (answer[i] == U'.' ? s[at + i] == U'\n' : s[at + i] != answer[i]) return false;
  return true;
}

// A "(" before [begin, end) and a ")" after it, on the same line.
bool is_in_brackets(const std::u32string& s, size_t begin, size_t end) {
  const size_t open = begin == 0 ? s.npos : s.find_last_of(U"(\n", begin - 1);
  const size_t close = s.find_first_of(U")\n", end);
  return open != s.npos && s[open] == U'(' && close != s.npos && s[close] == U')';
}
}  // namespace

bool is_right_choice(std::string_view output, std::string_view answer_as_given) {
  const std::u32string s = characters_of(output);
  std::u32string answer = characters_of(answer_as_given);
  for (char32_t& c : answer)
    if (c >= U'a' && c <= U'z') c -= U'a' - U'A';

  for (size_t begin = 0; begin <= s.size(); ++begin) {
    if (!matches_at(s, begin, answer)) continue;
    const size_t end = begin + answer.size();
    const bool before = is_boundary(s, begin),
               punctuated = end < s.size() && (s[end] == U'.' || s[end] == U',' || s[end] == U')');
    if ((before && (is_boundary(s, end) || punctuated)) || is_in_brackets(s, begin, end)) return true;
  }
  return false;
}

}  // namespace nanovlm
