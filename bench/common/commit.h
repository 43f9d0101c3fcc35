// The source that a bench was built from.
#pragma once
#include <string>

namespace nanovlm::bench {

// As `git describe --always --dirty` names it; empty where the source was in no repository.
std::string commit();

}  // namespace nanovlm::bench
