// Colours for people: only where standard output is a terminal that wants them (https://no-color.org).
#pragma once
#include <string>

namespace nanovlm {

enum class Colour { none, bold, dim, red, green, yellow, blue };

bool colours_wanted();

// `text` between the terminal's codes, or as it is where colours are not wanted.
std::string paint(const std::string& text, Colour colour);

}  // namespace nanovlm
