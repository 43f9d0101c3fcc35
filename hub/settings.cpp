#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>

#include "engine/error.h"
#include "engine/file.h"
#include "hub/http.h"
#include "hub/hub.h"

namespace nanovlm::hub {
namespace {

constexpr int64_t kMaxTokenBytes = 4096;

// The value of the first of the variables that is set and not empty.
std::string variable(std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (const char* value = std::getenv(name); value != nullptr && *value != '\0') return value;
  return "";
}

bool is_true(std::string value) {
  for (char& c : value) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

// "~/x" as a shell would take it.
std::string expanded(const std::string& path) {
  return path == "~" || path.starts_with("~/") ? variable({"HOME"}) + path.substr(1) : path;
}

std::string home() {
  if (const std::string given = variable({"HF_HOME"}); !given.empty()) return expanded(given);
  const std::string caches = variable({"XDG_CACHE_HOME"});
  return (caches.empty() ? expanded("~/.cache") : expanded(caches)) + "/huggingface";
}

std::string read_token() {
  if (is_true(variable({"HF_HUB_DISABLE_IMPLICIT_TOKEN"}))) return "";
  std::string token = variable({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}), place = "HF_TOKEN";
  if (token.empty()) {
    const std::string given = variable({"HF_TOKEN_PATH"});
    place = given.empty() ? home() + "/token" : expanded(given);
    if (!std::filesystem::exists(place)) return "";
    const std::vector<uint8_t> bytes = File::open(place).read_all(kMaxTokenBytes);
    token.assign(bytes.begin(), bytes.end());
  }
  constexpr const char* kSpace = " \t\r\n";
  const size_t begin = token.find_first_not_of(kSpace);
  if (begin == token.npos) return "";
  token = token.substr(begin, token.find_last_not_of(kSpace) - begin + 1);
  // It goes into a header line, where a line break would begin another.
  check(std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c < 127; }), place,
        ": expected a token of printable characters, found others");
  return token;
}

int64_t read_timeout(int64_t otherwise) {
  const std::string value = variable({"HF_HUB_DOWNLOAD_TIMEOUT"});
  if (value.empty()) return otherwise;
  int64_t seconds = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), seconds);
  check(error == std::errc() && end == value.data() + value.size() && seconds >= 1 && seconds <= 86400,
        "HF_HUB_DOWNLOAD_TIMEOUT: expected seconds from 1 to 86400, found \"", value, "\"");
  return seconds;
}

}  // namespace

Settings Settings::from_environment() {
  Settings settings;
  if (const std::string given = variable({"HF_ENDPOINT"}); !given.empty()) settings.endpoint = given;
  while (settings.endpoint.ends_with('/')) settings.endpoint.pop_back();
  origin_of(settings.endpoint);
  check(settings.endpoint == without_query(settings.endpoint), "HF_ENDPOINT: expected an address without ? and #");
  const std::string cache = variable({"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"});
  settings.cache = cache.empty() ? home() + "/hub" : expanded(cache);
  settings.token = read_token();
  settings.offline = is_true(variable({"HF_HUB_OFFLINE"}));
  settings.stall_seconds = read_timeout(settings.stall_seconds);
  return settings;
}

}  // namespace nanovlm::hub
