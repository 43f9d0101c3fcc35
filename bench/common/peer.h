// Other programs that do the same work, timed beside ours: each prints one JSON object as its last line.
#pragma once
#include <string>

#include <nlohmann/json_fwd.hpp>

namespace nanovlm::bench {

// Runs the shell command and returns that object. Error: the command failed or printed none.
nlohmann::json run_peer(const std::string& command);

}  // namespace nanovlm::bench
