// A GPU: all that the cuda device needs of the CUDA runtime library, behind words of our own, so that neither the
// engine nor a test includes its headers. Kernel contracts reach it through their Stream:
//
//     cuda::Gpu gpu;
//     kernels::rms_norm(Cuda{}, {x, ...}, gpu.stream());   // returns at once
//     gpu.download(host, x, bytes);                        // waits; throws where a kernel has failed
//
// Everything is ordered by one compute stream. A second stream carries copies from the host while kernels run
// (staging.h). Used by one host thread at a time. Errors are std::runtime_error.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "kernels/launch.h"
#include "kernels/matmul/matmul.h"

struct CUstream_st;  // the CUDA runtime's cudaStream_t points to it

namespace nanovlm::cuda {

// Why this machine has no GPU to use ("no CUDA driver is installed"); empty where it has one.
std::string why_absent();

struct Options {
  bool synchronous = false;  // wait for every launch: slow, but a fault is named with its kernel and shape
};

// Something that was started: a kernel, or where that is null a library's product.
struct Launch {
  const void* kernel = nullptr;
  int64_t shared_bytes = 0;  // dynamic, of a block
};

class Products;
class Staging;

class Gpu {
 public:
  // The first GPU that CUDA_VISIBLE_DEVICES leaves. Throws where why_absent() has something to say.
  explicit Gpu(const Options& options = {});
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  std::string name() const;  // "NVIDIA H100 80GB HBM3, compute capability 9.0, 79.2 GiB"

  // The stream that carries this GPU into kernel contracts.
  Stream stream() { return {this}; }
  // Throws where the stream has no GPU.
  static Gpu& of(Stream stream, const char* kernel);

  // Device memory straight from the driver, 256-byte aligned; null where there is not so much. Giving back waits for
  // all work.
  void* take(size_t bytes);
  void give_back(void* memory);
  int64_t free_bytes() const;

  // Memory for the kernels of one call (kernels::Scratch). It is used again in the order of the compute stream. The
  // engine puts its caching allocator here.
  std::function<void*(size_t bytes)> take_scratch;
  std::function<void(void*)> give_back_scratch;

  // Told of every launch, if there is one: for benches.
  std::function<void(const Launch&)> on_launch;

  // Both in the order of the compute stream. After an upload `from` may be changed at once; a download waits.
  void upload(void* to, const void* from, size_t bytes);
  void download(void* to, const void* from, size_t bytes);
  void copy(void* to, const void* from, size_t bytes);  // within device memory, in the same order
  // Waits for all work. Throws where any of it has failed, naming `operation` and the launches since the last wait.
  void synchronise(const char* operation);

  // Matrix products. Throws where the library that makes them is not found.
  Products& products();

  // What launch() in words.cuh needs.
  CUstream_st* compute_stream() const { return compute_.get(); }
  int64_t shared_limit() const;  // bytes of shared memory that a block may have
  void allow_shared_memory(const void* kernel, const char* name, const kernels::LaunchShape& shape);
  // Called after each launch. Throws where it was refused, or where an earlier one is found to have failed: which of
  // the two is not known, so it names the launches since the last wait.
  void launched(const char* name, const void* kernel, const kernels::LaunchShape& shape);
  void launched(const kernels::Matmul& product);
  void replayed(size_t launches);  // after a graph was started
  bool waits_for_launches() const { return options_.synchronous; }

 private:
  struct Launches;  // since the last wait
  template <class What>
  void note(const What& what);
  [[noreturn]] void fail(const std::string& operation, const char* said) const;

  struct DestroyStream {
    void operator()(CUstream_st* stream) const;
  };
  using OwnStream = std::unique_ptr<CUstream_st, DestroyStream>;
  static OwnStream make_stream();

  Options options_;
  OwnStream compute_, copies_;
  std::unique_ptr<Launches> launches_;
  std::unique_ptr<Staging> staging_;
  std::unique_ptr<Products> products_;
};

}  // namespace nanovlm::cuda

namespace nanovlm::kernels::inline cuda_words {  // kernels/launch.h

// Device memory for the kernels of one call, freed in the stream's order once they have run.
class Scratch {
 public:
  Scratch(const char* name, Stream stream, int64_t bytes)
      : gpu_(cuda::Gpu::of(stream, name)), data_(gpu_.take_scratch(static_cast<size_t>(bytes))) {}
  ~Scratch() { gpu_.give_back_scratch(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* floats() { return static_cast<float*>(data_); }

 private:
  cuda::Gpu& gpu_;
  void* data_;
};

}  // namespace nanovlm::kernels::inline cuda_words
