// What a call of our own starts on a GPU, as its runtime library tells it.
#pragma once
#include <functional>

#include "bench/common/harness.h"
#include "engine/device.h"

namespace nanovlm::bench {

// Calls `call`, on any device. Columns kernels (products of a library are one each), regs (the most a thread),
// smem_kb (the most a block, static and dynamic) and workspace_mb (memory for the call alone); none without a GPU.
Report::Row launch_columns(const Device& device, const std::function<void()>& call);

}  // namespace nanovlm::bench
