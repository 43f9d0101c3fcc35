#include "kernels/stand_in/runtime.h"

#include <cstdio>
#include <cstring>
#include <new>

#include "kernels/stand_in/library.h"

namespace nanovlm::stand_in {

// Never destroyed: objects that end with the program may still give things back.
Library& library() {
  static Library* const it = new Library;
  return *it;
}

void set_machine(const Machine& machine) {
  Library& it = library();
  const std::lock_guard lock(it.mutex);
  it.finish_all();
  it.machine = machine;
  it.random.seed(machine.seed);
  it.last = cudaSuccess;
  it.stays.clear();
}

Held held() {
  const Library& it = library();
  return {.device_bytes = total(it.device),
          .pinned_bytes = total(it.pinned),
          .streams = static_cast<int64_t>(it.streams.size()),
          .events = static_cast<int64_t>(it.events.size()),
          .graphs = it.graphs,
          .products = it.products};
}

int64_t calls_that_may_fail() { return library().calls; }

bool enqueue(CUstream_st* stream, std::function<void(simt::Executor&)> work) {
  return library().call([&] { return library().add(stream, {std::move(work), nullptr}); }) == cudaSuccess;
}

bool fails() {
  return library().call([] { return cudaSuccess; }) != cudaSuccess;
}

void hold_products(int more) { library().products += more; }

}  // namespace nanovlm::stand_in

using nanovlm::stand_in::library;
using nanovlm::stand_in::Machine;
using nanovlm::stand_in::total;
using nanovlm::stand_in::Work;

namespace {

std::shared_ptr<CUevent_st> event_of(cudaEvent_t event) { return library().events.at(event); }

}  // namespace

// ---- the library's own names, as the CUDA Runtime API's manual describes them

cudaError_t cudaDriverGetVersion(int* version) {
  return library().call([&] {
    *version = library().machine.driver;
    return cudaSuccess;
  });
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  return library().call([&] {
    const Machine& machine = library().machine;
    *count = machine.devices;
    if (machine.driver < CUDART_VERSION / 1000 * 1000) return cudaErrorInsufficientDriver;
    return machine.devices > 0 ? cudaSuccess : cudaErrorNoDevice;
  });
}

cudaError_t cudaSetDevice(int device) {
  return library().call([&] { return device < library().machine.devices ? cudaSuccess : cudaErrorInvalidDevice; });
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* bus, int length, int) {
  std::snprintf(bus, static_cast<size_t>(length), "0000:00:00.0");  // no other library knows of it
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  return library().call([&] {
    const Machine& machine = library().machine;
    switch (which) {
      case cudaDevAttrComputeCapabilityMajor:
        *value = machine.capability_major;
        return cudaSuccess;
      case cudaDevAttrComputeCapabilityMinor:
        *value = machine.capability_minor;
        return cudaSuccess;
      case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = static_cast<int>(library().executor.options.shared_limit);
        return cudaSuccess;
      case cudaDevAttrL2CacheSize:
        *value = 50 << 20;
        return cudaSuccess;
      case cudaDevAttrMultiProcessorCount:
        *value = 132;
        return cudaSuccess;
      default:
        return cudaErrorInvalidValue;
    }
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  return library().call([&] {
    const Machine& machine = library().machine;
    *properties = {};
    std::strcpy(properties->name, "stand-in GPU");
    properties->major = machine.capability_major, properties->minor = machine.capability_minor;
    properties->totalGlobalMem = static_cast<size_t>(machine.memory);
    return cudaSuccess;
  });
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute which, int value) {
  return library().call([&] {
    const bool allowed =
        which == cudaFuncAttributeMaxDynamicSharedMemorySize && value <= library().executor.options.shared_limit;
    return allowed ? cudaSuccess : cudaErrorInvalidValue;
  });
}

// No assembler has seen the kernels: registers and static shared memory are not known.
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* needs, const void*) {
  return library().call([&] {
    *needs = {};
    return cudaSuccess;
  });
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorLaunchFailure:
      return library().stays.c_str();
    case cudaErrorUnknown:
      return "unknown error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    case cudaErrorInvalidValue:
      return "invalid argument";
    default:
      return "another error";
  }
}

cudaError_t cudaGetLastError() {
  const std::lock_guard lock(library().mutex);
  const cudaError_t error = library().last;
  library().last = library().state();
  return error;
}

// ---- memory

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  return library().call([&] {
    auto& it = library();
    if (it.spoils_a_recording()) return cudaErrorStreamCaptureUnsupported;
    const int64_t size = static_cast<int64_t>(bytes);
    if (size > it.machine.memory - total(it.device)) return cudaErrorMemoryAllocation;
    *memory = it.executor.allocate(size);
    it.device[static_cast<char*>(*memory)] = size;
    return cudaSuccess;
  });
}

// The host may read and write it while no work is under way: here any device memory.
cudaError_t cudaMallocManaged(void** memory, size_t bytes, unsigned) { return cudaMalloc(memory, bytes); }

cudaError_t cudaFree(void* memory) {
  auto& it = library();
  const std::lock_guard lock(it.mutex);
  if (!memory) return cudaSuccess;
  if (it.spoils_a_recording()) return it.last = cudaErrorStreamCaptureUnsupported;
  it.finish_all();
  if (it.device.erase(static_cast<char*>(memory)) == 0) return it.last = cudaErrorInvalidValue;
  it.executor.free(memory);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  return library().call([&] {
    *memory = ::operator new(bytes);
    library().pinned[static_cast<char*>(*memory)] = static_cast<int64_t>(bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaFreeHost(void* memory) {
  auto& it = library();
  const std::lock_guard lock(it.mutex);
  if (memory && it.pinned.erase(static_cast<char*>(memory)) == 0) return it.last = cudaErrorInvalidValue;
  ::operator delete(memory);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* left, size_t* all) {
  return library().call([&] {
    *all = static_cast<size_t>(library().machine.memory);
    *left = *all - static_cast<size_t>(total(library().device));
    return cudaSuccess;
  });
}

// Host memory that is not pinned is read, or written, before the call returns: "API synchronization behavior".
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_row, const void* from, size_t from_row, size_t bytes, size_t rows,
                              cudaMemcpyKind kind, cudaStream_t stream) {
  return library().call([&] {
    auto& it = library();
    if (bytes == 0 || rows == 0) return cudaSuccess;
    const size_t read = (rows - 1) * from_row + bytes, written = (rows - 1) * to_row + bytes;
    const bool reads_device = kind != cudaMemcpyHostToDevice, writes_device = kind != cudaMemcpyDeviceToHost;
    if ((reads_device && !it.owns(it.device, from, read)) || (writes_device && !it.owns(it.device, to, written)))
      return cudaErrorInvalidValue;
    const bool from_pinned = !reads_device && it.owns(it.pinned, from, read);
    const bool to_pinned = !writes_device && it.owns(it.pinned, to, written);
    const cudaError_t added =
        it.add(stream, {[=](auto&) {
                          if (from_pinned && !library().owns(library().pinned, from, read))
                            throw std::runtime_error("pinned memory was freed before it was read");
                          for (size_t row = 0; row < rows; ++row)
                            std::memcpy(static_cast<char*>(to) + row * to_row,
                                        static_cast<const char*>(from) + row * from_row, bytes);
                        },
                        nullptr});
    const bool pageable = (!reads_device && !from_pinned) || (!writes_device && !to_pinned);
    if (pageable && stream->recording) return it.spoil(stream);
    if (pageable) it.finish(stream);
    return added;
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

// ---- streams and events

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return library().call([&] {
    *stream = new CUstream_st{.number = library().streams_made++, .queue = {}, .recording = nullptr};
    library().streams.insert(*stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  auto& it = library();
  const std::lock_guard lock(it.mutex);
  if (it.streams.count(stream) == 0) return it.last = cudaErrorInvalidValue;
  it.finish(stream);
  it.streams.erase(stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return library().call([&] {
    if (stream->recording) return library().spoil(stream);
    library().finish(stream);
    return library().state();
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t f, void* data) {
  return library().call([&] { return library().add(stream, {.run = [f, data](auto&) { f(data); }, .event = {}}); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return library().call([&] {
    auto made = std::make_shared<CUevent_st>();
    *event = made.get();
    library().events[made.get()] = made;
    return cudaSuccess;
  });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const std::lock_guard lock(library().mutex);
  return library().events.erase(event) == 1 ? cudaSuccess : library().last = cudaErrorInvalidValue;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return library().call([&] {
    event->in = stream;
    return library().add(stream, {nullptr, event_of(event), ++event->recorded});
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return library().call([&] { return library().add(stream, {nullptr, event_of(event), event->recorded, true}); });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return library().call([&] { return event->reached == event->recorded ? cudaSuccess : cudaErrorNotReady; });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return library().call([&] {
    library().reach(*event, event->recorded);
    return library().state();
  });
}

// Any time: what depends on one must not depend on the machine.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  return library().call([&] {
    if (begin->reached < begin->recorded || end->reached < end->recorded) return cudaErrorNotReady;
    *milliseconds = 1e-3f * static_cast<float>(1 + library().random() % 1000);
    return cudaSuccess;
  });
}

// ---- graphs

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  return library().call([&] {
    if (stream->recording) return cudaErrorIllegalState;
    stream->recording = std::make_unique<CUgraph_st>();
    stream->broken = false;
    return cudaSuccess;
  });
}

// Ends the recording, whatever else fails.
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  std::unique_ptr<CUgraph_st> recorded = std::move(stream->recording);
  *graph = nullptr;
  return library().call([&] {
    if (!recorded) return cudaErrorIllegalState;
    if (stream->broken) return cudaErrorStreamCaptureInvalidated;
    *graph = recorded.release();
    ++library().graphs;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
  return library().call([&] {
    *count = graph->works.size();
    return cudaSuccess;
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* launches, cudaGraph_t graph, unsigned long long) {
  return library().call([&] {
    *launches = new CUgraphExec_st{*graph};
    ++library().graphs;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t launches, cudaStream_t stream) {
  return library().call([&] {
    for (const Work& work : launches->works)
      if (const cudaError_t error = library().add(stream, work); error != cudaSuccess) return error;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const std::lock_guard lock(library().mutex);
  delete graph;
  --library().graphs;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t launches) {
  const std::lock_guard lock(library().mutex);
  if (!launches) return cudaErrorInvalidValue;
  delete launches;
  --library().graphs;
  return cudaSuccess;
}
