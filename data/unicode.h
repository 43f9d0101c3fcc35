// Characters: UTF-8 and the four classes that tokenizers ask for (Unicode 16.0).
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nanovlm {

// Classes, as bits. kWord is what regular expressions call \w: letters, marks, digits, connectors.
enum CharacterClass : uint8_t { kLetter = 1, kNumber = 2, kSpace = 4, kWord = 8 };

struct ClassRange {
  char32_t first, last;
  uint8_t classes;
};
extern const ClassRange kClassRanges[];  // ascending; characters in no range have no class
extern const int kClassRangeCount;

// One character of a text.
struct Character {
  char32_t code;
  int size;  // bytes

  // The character that begins at byte `at` of a valid UTF-8 text.
  static Character at(std::string_view text, size_t at);
  static Character before(std::string_view text, size_t end);  // the one that ends there
};

// The classes of every code point, one byte each: pages of the scripts in use stay in the cache.
class CharacterClasses {
 public:
  static const CharacterClasses& get();
  uint8_t operator[](char32_t code) const { return classes_[code]; }

 private:
  CharacterClasses();
  std::vector<uint8_t> classes_;
};

// The first byte that no valid UTF-8 sequence holds, or npos. Surrogates and overlong forms are invalid.
size_t find_invalid_utf8(std::string_view text);

// The text with each maximal invalid part (Unicode 16.0, section 3.9, "U+FFFD Substitution of Maximal Subparts")
// replaced by one U+FFFD.
std::string replace_invalid_utf8(std::string_view bytes);

// Appends the character.
void append_utf8(std::string& text, char32_t code);

}  // namespace nanovlm
