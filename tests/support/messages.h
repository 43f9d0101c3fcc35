#pragma once
#include <string>

#include "engine/error.h"

// The message of the Error that f throws.
template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const nanovlm::Error& error) {
    return error.what();
  }
  return "no error";
}
