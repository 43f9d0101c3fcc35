#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/image.h"
#include "tests/support/catch.h"

using Bytes = std::vector<uint8_t>;

// The message with which bytes are refused; a failed check if they are not, or if it does not begin with the file.
inline std::string refusal(const Bytes& bytes) {
  try {
    nanovlm::decode_image(bytes, "the-file");
  } catch (const nanovlm::ImageError& error) {
    const std::string message = error.what();
    CHECK(message.starts_with("the-file: "));
    CHECK(message.find('\n') == message.npos);
    return message;
  }
  FAIL_CHECK("expected a refusal");
  return "";
}
