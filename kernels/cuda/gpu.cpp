#include "kernels/cuda/gpu.h"

#include <cstdlib>
#include <deque>
#include <variant>

#include "kernels/cuda/check.h"
#include "kernels/cuda/products.h"
#include "kernels/cuda/staging.h"

namespace nanovlm::cuda {
namespace {

constexpr int kOldestMajor = 8;  // compute capability 8.0: bf16 tensor cores, cp.async
constexpr size_t kLaunchesNamed = 8;

std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

int attribute(cudaDeviceAttr which) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, 0), "device cuda");
  return value;
}

struct KernelLaunch {
  const char* name;
  kernels::LaunchShape shape;
};

std::string describe(const KernelLaunch& launch) {
  const auto extent = [](const kernels::Extent& e) {
    return std::to_string(e.x) + "x" + std::to_string(e.y) + "x" + std::to_string(e.z);
  };
  return std::string(launch.name) + " (grid " + extent(launch.shape.grid) + ", block " + extent(launch.shape.block) +
         ", " + std::to_string(launch.shape.shared_bytes) + " bytes of dynamic shared memory)";
}

struct Replay {
  size_t launches;
};

std::string describe(const Replay& replay) {
  return "a graph of " + std::to_string(replay.launches) + " recorded launches";
}

std::string describe(const kernels::Matmul& a) { return describe_product(a.M, a.N, a.K, a.in, a.out); }

}  // namespace

std::string why_absent() {
  int driver = 0, count = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "no CUDA driver is installed";
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorInsufficientDriver)
    return "the driver is too old: it knows CUDA " + version(driver) + ", and this build needs " +
           version(CUDART_VERSION);
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
    const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
    return std::string("the driver finds no GPU") +
           (visible ? " (CUDA_VISIBLE_DEVICES is \"" + std::string(visible) + "\")" : "");
  }
  if (error != cudaSuccess) return std::string("CUDA says: ") + cudaGetErrorString(error);
  const int major = attribute(cudaDevAttrComputeCapabilityMajor), minor = attribute(cudaDevAttrComputeCapabilityMinor);
  if (major < kOldestMajor)
    return "the GPU has compute capability " + std::to_string(major) + "." + std::to_string(minor) +
           ", and 8.0 or later is needed";
  return "";
}

// The newest launches, and how many there were since the last wait.
struct Gpu::Launches {
  std::deque<std::variant<KernelLaunch, kernels::Matmul, Replay>> newest;
  int64_t count = 0;

  std::string text() const {
    std::string list;
    for (const auto& launch : newest)
      list += (list.empty() ? "" : ", ") + std::visit([](const auto& it) { return describe(it); }, launch);
    return list;
  }
};

Gpu::Gpu(const Options& options) : options_(options), launches_(std::make_unique<Launches>()) {
  const std::string reason = why_absent();
  if (!reason.empty()) throw std::runtime_error("device cuda: " + reason);
  check(cudaSetDevice(0), "device cuda");
  compute_ = make_stream();
  copies_ = make_stream();
  take_scratch = [this](size_t bytes) {
    void* memory = take(bytes);
    if (!memory) throw std::runtime_error("device cuda: no " + std::to_string(bytes) + " bytes of scratch memory");
    return memory;
  };
  give_back_scratch = [this](void* memory) { give_back(memory); };
}

Gpu::~Gpu() { cudaStreamSynchronize(compute_.get()); }

Gpu::OwnStream Gpu::make_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "device cuda: a stream");
  return OwnStream(stream);
}
void Gpu::DestroyStream::operator()(CUstream_st* stream) const { cudaStreamDestroy(stream); }

std::string Gpu::name() const {
  cudaDeviceProp device{};
  check(cudaGetDeviceProperties(&device, 0), "device cuda");
  const std::string tenths = std::to_string(device.totalGlobalMem * 10 >> 30);
  return std::string(device.name) + ", compute capability " + std::to_string(device.major) + "." +
         std::to_string(device.minor) + ", " + tenths.substr(0, tenths.size() - 1) + "." + tenths.back() + " GiB";
}

Gpu& Gpu::of(Stream stream, const char* kernel) {
  if (!stream.handle) throw std::invalid_argument(std::string(kernel) + ": the stream has no GPU");
  return *static_cast<Gpu*>(stream.handle);
}

void* Gpu::take(size_t bytes) {
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // or the next launch would take it for its own
    return nullptr;
  }
  check(error, "device cuda: " + std::to_string(bytes) + " bytes of memory");
  return memory;
}

void Gpu::give_back(void* memory) { cudaFree(memory); }

int64_t Gpu::free_bytes() const {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "device cuda");
  return static_cast<int64_t>(free);
}

void Gpu::upload(void* to, const void* from, size_t bytes) {
  if (!staging_) staging_ = std::make_unique<Staging>(compute_.get(), copies_.get());
  staging_->upload(to, from, bytes);
}

void Gpu::download(void* to, const void* from, size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, compute_.get()), "download");
  synchronise("download");
}

void Gpu::copy(void* to, const void* from, size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, compute_.get()), "copy");
}

void Gpu::synchronise(const char* operation) {
  const cudaError_t error = cudaStreamSynchronize(compute_.get());
  if (error == cudaSuccess) {
    *launches_ = {};
    return;
  }
  fail(operation, cudaGetErrorString(error));
}

void Gpu::fail(const std::string& operation, const char* said) const {
  throw std::runtime_error(operation + ": CUDA says: " + said + "; one of " + std::to_string(launches_->count) +
                           " launches failed, newest first: " + launches_->text() +
                           "; NANOVLM_DEBUG=2 waits for each and names the one");
}

Products& Gpu::products() {
  if (!products_) products_ = std::make_unique<Products>(*this);
  return *products_;
}

int64_t Gpu::shared_limit() const { return attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin); }

void Gpu::allow_shared_memory(const void* kernel, const char* name, const kernels::LaunchShape& shape) {
  constexpr int64_t kUnasked = 48 * 1024;  // more dynamic shared memory has to be asked for
  if (shape.shared_bytes <= kUnasked) return;
  const int64_t limit = shared_limit();
  if (shape.shared_bytes > limit)
    throw std::invalid_argument(describe(KernelLaunch{name, shape}) + ": this GPU allows " + std::to_string(limit) +
                                " bytes a block");
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes)),
        describe(KernelLaunch{name, shape}));
}

template <class What>
void Gpu::note(const What& what) {
  const cudaError_t refused = cudaGetLastError();
  if (refused != cudaSuccess && options_.synchronous) check(refused, describe(what));
  ++launches_->count;
  launches_->newest.push_front(what);
  if (launches_->newest.size() > kLaunchesNamed) launches_->newest.pop_back();
  if (refused != cudaSuccess) fail(describe(what), cudaGetErrorString(refused));
  if (!options_.synchronous) return;
  if (const cudaError_t error = cudaStreamSynchronize(compute_.get()); error != cudaSuccess)
    check(error, describe(what));
}

void Gpu::launched(const char* name, const void* kernel, const kernels::LaunchShape& shape) {
  note(KernelLaunch{name, shape});
  if (on_launch) on_launch({kernel, shape.shared_bytes});
}
void Gpu::launched(const kernels::Matmul& product) {
  note(product);
  if (on_launch) on_launch({});
}
void Gpu::replayed(size_t launches) { note(Replay{launches}); }

}  // namespace nanovlm::cuda
