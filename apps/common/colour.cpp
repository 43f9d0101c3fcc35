#include "apps/common/colour.h"

#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace nanovlm {

bool colours_wanted() {
  const char* no_color = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  return isatty(STDOUT_FILENO) && (!no_color || !*no_color) && terminal && std::string_view(terminal) != "dumb";
}

std::string paint(const std::string& text, Colour colour) {
  constexpr const char* kCodes[] = {"", "1", "2", "31", "32", "33", "34"};
  if (colour == Colour::none || !colours_wanted()) return text;
  return std::string("\x1b[") + kCodes[static_cast<int>(colour)] + "m" + text + "\x1b[0m";
}

}  // namespace nanovlm
