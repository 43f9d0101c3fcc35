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

CachingAllocator& pool_of(const Device& device) {
  DeviceContext& context = device.context();
  if (!context.recorded_memory) {
    CachingAllocator::Source segments = context.segments();
    segments.cheap = false;  // once found, they stay
    context.recorded_memory = std::make_unique<CachingAllocator>(std::move(segments));
  }
  return *context.recorded_memory;
}

// New storage comes from the pool of recorded work while it lives.
class RecordedMemory {
 public:
  RecordedMemory(const Device& device, bool fixed) : pool_(pool_of(device)), source_(device, &pool_) {
    pool_.fix(fixed);
    pool_.start_trail();
  }
  ~RecordedMemory() { pool_.fix(false); }

  MemoryReport report() const { return pool_.report(); }
  uint64_t trail() const { return pool_.trail(); }

 private:
  CachingAllocator& pool_;
  ContextScope<&DeviceContext::source> source_;
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
