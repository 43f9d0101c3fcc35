// SHA-256 (FIPS 180-4), to compare what was computed with what others computed.
#pragma once
#include <cstdint>
#include <span>
#include <string>

namespace nanovlm::inspect {

std::string sha256(std::span<const uint8_t> bytes);  // 64 hexadecimal digits

}  // namespace nanovlm::inspect
