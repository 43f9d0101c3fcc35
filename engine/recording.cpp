#include "engine/recording.h"

#include "engine/error.h"
#if defined(NANOVLM_CUDA_KERNELS)
#include "kernels/cuda/graph.h"
#endif

namespace nanovlm {

#if defined(NANOVLM_CUDA_KERNELS)
struct Recording::Graph : cuda::Graph {
  using cuda::Graph::Graph;
};
#else
struct Recording::Graph {};
#endif

namespace {

// New storage comes from the pool of recorded work while it lives.
class RecordedMemory {
 public:
  RecordedMemory(const Device& device, bool fixed) : context_(device.context()) {
    if (!context_.recorded_memory) {
      CachingAllocator::Source segments = context_.segments();
      segments.cheap = false;  // once found, they stay
      context_.recorded_memory = std::make_unique<CachingAllocator>(std::move(segments));
    }
    context_.source = context_.recorded_memory.get();
    context_.source->fix(fixed);
    context_.source->start_trail();
  }
  ~RecordedMemory() {
    context_.source->fix(false);
    context_.source = &context_.memory;
  }
  RecordedMemory(const RecordedMemory&) = delete;
  RecordedMemory& operator=(const RecordedMemory&) = delete;

  MemoryReport report() const { return context_.source->report(); }
  uint64_t trail() const { return context_.source->trail(); }

 private:
  DeviceContext& context_;
};

}  // namespace

bool Recording::rehearse(const Device& device, const std::function<void()>& work) {
  const RecordedMemory memory(device, false);
  const int64_t before = memory.report().reserved;
  {
    const LaunchesOnly launches_only(device);
    work();
  }
  check(memory.report().in_use == 0, "recorded launches: ", memory.report().in_use,
        " bytes of their memory are still in use after them");
  return memory.report().reserved == before;
}

Recording::Recording(Device device, std::function<void()> work) : device_(std::move(device)), work_(std::move(work)) {
#if defined(NANOVLM_CUDA_KERNELS)
  if (device_.kind() != DeviceKind::cuda) return;
  const RecordedMemory memory(device_, true);
  const LaunchesOnly launches_only(device_);
  graph_ = std::make_unique<Graph>(*device_.context().gpu, work_);
#endif
}

Recording::~Recording() = default;

void Recording::replay() {
#if defined(NANOVLM_CUDA_KERNELS)
  if (graph_) return graph_->replay();
#endif
  const RecordedMemory memory(device_, true);
  const LaunchesOnly launches_only(device_);
  work_();
  const uint64_t trail = memory.trail();
  check(!trail_ || *trail_ == trail, "recorded launches: their memory lay elsewhere when they were run again");
  trail_ = trail;
}

}  // namespace nanovlm
