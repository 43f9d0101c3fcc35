// What a device is, for a report that is read on another machine.
#pragma once
#include <nlohmann/json_fwd.hpp>

#include "engine/device.h"

namespace nanovlm::bench {

// Its kind and name; of a GPU also multiprocessors, sizes, and the versions of driver and runtime.
nlohmann::ordered_json device_block(const Device& device);

}  // namespace nanovlm::bench
