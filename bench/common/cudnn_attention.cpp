#include "bench/common/cudnn_attention.h"

#include "engine/error.h"

#if defined(NANOVLM_CUDNN_FRONTEND)
#include <dlfcn.h>
#include <stdlib.h>

#include <algorithm>
#include <string>
#include <unordered_map>

#include "kernels/cuda/gpu.h"

#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;  // the frontend looks its functions up in it
}

namespace fe = cudnn_frontend;
#endif

namespace nanovlm::bench {

#if defined(NANOVLM_CUDNN_FRONTEND)
namespace {

constexpr auto kRounded = fe::DataType_t::BFLOAT16, kFloat = fe::DataType_t::FLOAT;

void expect(const fe::error_t& status, const char* step) {
  check(status.is_good(), "cuDNN's attention: ", step, ": ", status.err_msg);
}

// By name as the loader finds it, else from the toolkit that the build saw; null with `said` where neither has it.
// Never closed: the CUDA libraries have threads and exit handlers of their own.
void* open_library(const std::string& name, std::string& said) {
  if (void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
  said = dlerror();
  return dlopen((NANOVLM_CUDA_LIBRARIES "/" + name).c_str(), RTLD_NOW | RTLD_LOCAL);
}

void load_cudnn() {
  if (fe::cudnn_dlhandle) return;
  std::string said;
  // cuDNN and its frontend ask for these by their bare names, which are found once the libraries are loaded.
  const std::string major = std::to_string(CUDART_VERSION / 1000), runtime = "libcudart.so." + major;
  if (open_library(runtime, said)) setenv("CUDNN_FRONTEND_CUDART_LIB_NAME", runtime.c_str(), 0);
  open_library("libnvrtc.so." + major, said);
  const std::string name = "libcudnn.so." + std::to_string(CUDNN_MAJOR);
  fe::cudnn_dlhandle = open_library(name, said);
  check(fe::cudnn_dlhandle, "cuDNN's attention needs ", name, ": ", said, " (LD_LIBRARY_PATH tells where to look)");
}

}  // namespace

class CudnnAttention::Handle {
 public:
  explicit Handle(const Device& device) {
    load_cudnn();
    expect_success(fe::detail::create_handle(&handle_), "cudnnCreate");
    expect_success(fe::detail::set_stream(handle_, device.context().gpu->compute_stream()), "cudnnSetStream");
  }
  ~Handle() {
    if (handle_) fe::detail::destroy_handle(handle_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  cudnnHandle_t get() const { return handle_; }

 private:
  static void expect_success(cudnnStatus_t status, const char* call) {
    check(status == CUDNN_STATUS_SUCCESS, "cuDNN's attention: ", call, ": ", fe::detail::get_error_string(status));
  }

  cudnnHandle_t handle_ = nullptr;
};

// A graph of one operation, with the memory that it works in. Operands are bound by numbers of ours.
class CudnnAttention::Plan {
 public:
  enum Operand : int64_t { kQ = 1, kK, kV, kO, kStats, kDo, kDq, kDk, kDv };

  Plan(const Problem& problem, bool backward, const Handle& handle, const Device& device) : handle_(handle) {
    graph_.set_io_data_type(kRounded).set_intermediate_data_type(kFloat).set_compute_data_type(kFloat);
    backward ? describe_backward(problem) : describe_forward(problem);
    expect(graph_.build(handle.get(), {fe::HeurMode_t::A}), backward ? "backward" : "forward");
    int64_t bytes = 0;
    expect(graph_.get_workspace_size(bytes), "workspace");
    workspace_ = empty({std::max<int64_t>(bytes, 1)}, DType::u8, device);
  }

  void run(std::unordered_map<int64_t, void*> operands) const {
    expect(graph_.execute(handle_.get(), operands, workspace_.data()), "execution");
  }

 private:
  using Attributes = fe::graph::Tensor_attributes;
  using Entry = std::shared_ptr<Attributes>;

  // [B, heads, T, D] over rows [B * T, heads * D].
  static Attributes& describe(Attributes& x, const Problem& s, int heads, Operand number) {
    return x.set_uid(number)
        .set_dim({s.B, heads, s.T, s.D})
        .set_stride({s.T * heads * s.D, s.D, int64_t{heads} * s.D, 1})
        .set_data_type(kRounded);
  }
  static Attributes& describe_stats(Attributes& x, const Problem& s) {
    return x.set_uid(kStats).set_dim({s.B, s.H, s.T, 1}).set_stride({s.H * s.T, s.T, 1, 1}).set_data_type(kFloat);
  }
  Entry input(const Problem& s, int heads, Operand number) {
    Attributes x;
    return graph_.tensor(describe(x, s, heads, number));
  }

  void describe_forward(const Problem& s) {
    const Entry q = input(s, s.H, kQ), k = input(s, s.G, kK), v = input(s, s.G, kV);
    fe::graph::SDPA_attributes options;
    options.set_name("attention").set_generate_stats(true).set_causal_mask(s.causal).set_attn_scale(s.scale());
    const auto [o, stats] = graph_.sdpa(q, k, v, options);
    describe(*o, s, s.H, kO).set_output(true);
    describe_stats(*stats, s).set_output(true);
  }
  void describe_backward(const Problem& s) {
    const Entry q = input(s, s.H, kQ), k = input(s, s.G, kK), v = input(s, s.G, kV), o = input(s, s.H, kO);
    const Entry d_o = input(s, s.H, kDo);
    Attributes sums;
    const Entry stats = graph_.tensor(describe_stats(sums, s));
    fe::graph::SDPA_backward_attributes options;
    options.set_name("attention_backward").set_causal_mask(s.causal).set_attn_scale(s.scale());
    const auto [dq, dk, dv] = graph_.sdpa_backward(q, k, v, o, d_o, stats, options);
    describe(*dq, s, s.H, kDq).set_output(true);
    describe(*dk, s, s.G, kDk).set_output(true);
    describe(*dv, s, s.G, kDv).set_output(true);
  }

  const Handle& handle_;
  fe::graph::Graph graph_;
  Tensor workspace_;
};

void CudnnAttention::forward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& o, const Tensor& kept) {
  if (!handle_) handle_ = std::make_unique<Handle>(device_);
  if (!forward_) forward_ = std::make_unique<Plan>(problem_, false, *handle_, device_);
  forward_->run({{Plan::kQ, q.data()},
                 {Plan::kK, k.data()},
                 {Plan::kV, v.data()},
                 {Plan::kO, o.data()},
                 {Plan::kStats, kept.data()}});
}

void CudnnAttention::backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& o, const Tensor& d_o,
                              const Tensor& kept, const Tensor& dq, const Tensor& dk, const Tensor& dv) {
  if (!handle_) handle_ = std::make_unique<Handle>(device_);
  if (!backward_) backward_ = std::make_unique<Plan>(problem_, true, *handle_, device_);
  backward_->run({{Plan::kQ, q.data()},
                  {Plan::kK, k.data()},
                  {Plan::kV, v.data()},
                  {Plan::kO, o.data()},
                  {Plan::kDo, d_o.data()},
                  {Plan::kStats, kept.data()},
                  {Plan::kDq, dq.data()},
                  {Plan::kDk, dk.data()},
                  {Plan::kDv, dv.data()}});
}
#else
class CudnnAttention::Handle {};
class CudnnAttention::Plan {};

namespace {
constexpr const char* kAbsent =
    "this build has no cuDNN: CMake found no cudnn_frontend.h (-DNANOVLM_CUDNN_FRONTEND=FOLDER)";
}

void CudnnAttention::forward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  fail(kAbsent);
}
void CudnnAttention::backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                              const Tensor&, const Tensor&, const Tensor&) {
  fail(kAbsent);
}
#endif

CudnnAttention::CudnnAttention(const Problem& problem, const Device& device) : problem_(problem), device_(device) {}
CudnnAttention::~CudnnAttention() = default;

Tensor CudnnAttention::kept() const { return empty({problem_.B, problem_.H, problem_.T}, DType::f32, device_); }

}  // namespace nanovlm::bench
