#include "bench/common/peer.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/error.h"
#include "engine/json.h"

namespace nanovlm::bench {

nlohmann::json run_peer(const std::string& command) {
  FILE* pipe = popen(command.c_str(), "r");
  check(pipe != nullptr, "can't run: ", command);
  std::string output, last;
  char buffer[4096];
  while (std::fgets(buffer, sizeof buffer, pipe)) output += buffer;
  check(pclose(pipe) == 0, "the peer failed: ", command);
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("{")) last = line;
  check(!last.empty(), "the peer printed no JSON object: ", command);
  return parse_json(last, "the peer's output");
}

}  // namespace nanovlm::bench
