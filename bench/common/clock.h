// How a device's time is taken, and what it reaches at best: all that a bench does differently for a GPU.
#pragma once
#include <functional>
#include <optional>

#include "engine/device.h"

namespace nanovlm::bench {

class Clock {
 public:
  Clock() = default;  // the host's
  explicit Clock(const Device& device) : device_(device) {}

  // Seconds of one of `calls` calls of f, from the first one's start to the last one's end on the device.
  double seconds(const std::function<void()>& f, int calls) const;

  // How long a single timing should last at least, in seconds: a GPU needs some microseconds to start after a pause.
  double shortest() const { return device_ && device_->kind() == DeviceKind::cuda ? 500e-6 : 20e-6; }

  // Bytes that the device's last cache holds.
  int64_t cache_bytes() const;

 private:
  std::optional<Device> device_;
};

// Ceilings, measured in this process: a plain copy's bytes a second (read and written), a large matrix product's FLOPs.
double copy_rate(const Device& device);
double product_rate(const Device& device, DType dtype);

}  // namespace nanovlm::bench
