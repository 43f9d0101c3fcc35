#include "bench/common/cublaslt_attention.h"

#include "engine/error.h"
#include "kernels/softmax/softmax.h"

#if defined(NANOVLM_CUDA_KERNELS)
#include <bit>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/lt_product.h"
#endif

namespace nanovlm::bench {

#if defined(NANOVLM_CUDA_KERNELS)
namespace {

// What all products share.
struct Library {
  explicit Library(const Device& device)
      : workspace(empty({cuda::kLtWorkspace}, DType::u8, device)), stream(device.context().gpu->compute_stream()) {
    cublasLtHandle_t made = nullptr;
    functions.check(functions.create(&made), "attention by cuBLASLt");
    handle = cuda::LtHandle(made, {&functions});
  }

  cuda::CublasLt functions;
  cuda::LtHandle handle;
  Tensor workspace;
  CUstream_st* stream;
};

// c = op(a) op(b), or grows by it, in all sequences, by the algorithm that the library proposes first.
class Product {
 public:
  Product(const Library& library, uint32_t alignment, const cuda::LtMatrix& a, bool transpose_a,
          const cuda::LtMatrix& b, bool transpose_b, const cuda::LtMatrix& c)
      : library_(library), product_(library.functions, a, transpose_a, b, transpose_b, c) {
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    const auto found = product_.proposals(library_.handle.get(), alignment, 1, status);
    library_.functions.check(status, "attention by cuBLASLt");
    check(!found.empty(), "attention by cuBLASLt: the library has no algorithm for it");
    algorithm_ = found.front().algo;
  }

  void run(const void* a, const void* b, void* c, bool add) const {
    library_.functions.check(product_.run(library_.handle.get(), a, b, c, c, add ? 1 : 0, algorithm_,
                                          library_.workspace.data(), library_.stream),
                             "attention by cuBLASLt");
  }

 private:
  const Library& library_;
  cuda::LtProduct product_;
  cublasLtMatmulAlgo_t algorithm_;
};

// The bytes at whose multiples any head's operands lie: tensors begin at multiples of 256.
uint32_t alignment_of(const Problem& s) {
  const int64_t head = s.D * size_of(s.dtype), scores = s.T * s.T * size_of(s.dtype);
  return uint32_t{1} << std::countr_zero(static_cast<uint64_t>(head | scores | 256));
}

void* head_of(const Tensor& x, int64_t elements) {
  return static_cast<char*>(x.data()) + elements * size_of(x.dtype());
}

}  // namespace

// The three forms that all products of a head have, between rows of queries, rows of keys, and scores.
struct CublasltAttention::Products {
  Products(const Problem& s, const Device& device) : s(s), library(device) {}

  // to = a b^T: scores from queries and keys
  void score(const Tensor& a, const Tensor& b, const Tensor& to, int h) const {
    to_scores.run(query(a, h), key(b, h), score(to, h), false);
  }
  // to = scores b
  void gather(const Tensor& scores, const Tensor& b, const Tensor& to, int h) const {
    to_queries.run(score(scores, h), key(b, h), query(to, h), false);
  }
  // to = scores^T a, summed up over the heads of a group
  void scatter(const Tensor& scores, const Tensor& a, const Tensor& to, int h) const {
    to_keys.run(score(scores, h), query(a, h), key(to, h), h % (s.H / s.G) > 0);
  }

 private:
  void* query(const Tensor& x, int h) const { return head_of(x, int64_t{h} * s.D); }
  void* key(const Tensor& x, int h) const { return head_of(x, int64_t{h / (s.H / s.G)} * s.D); }
  void* score(const Tensor& x, int h) const { return head_of(x, h * s.B * s.T * s.T); }

  cuda::LtMatrix rows(int64_t heads) const {
    return {s.dtype, s.T, s.D, heads * s.D, static_cast<int32_t>(s.B), s.T * heads * s.D};
  }

  Problem s;
  Library library;
  cuda::LtMatrix queries = rows(s.H), keys = rows(s.G);
  cuda::LtMatrix scores{s.dtype, s.T, s.T, s.T, static_cast<int32_t>(s.B), s.T* s.T};
  Product to_scores{library, alignment_of(s), queries, false, keys, true, scores};
  Product to_queries{library, alignment_of(s), scores, false, keys, false, queries};
  Product to_keys{library, alignment_of(s), scores, true, queries, false, keys};
};

const CublasltAttention::Products& CublasltAttention::products() {
  if (!products_) products_ = std::make_unique<Products>(problem_, device_);
  return *products_;
}

void CublasltAttention::forward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& o,
                                const Tensor& kept) {
  const Problem& s = problem_;
  for (int h = 0; h < s.H; ++h) products().score(q, k, kept, h);
  on(device_, "softmax", [&](auto backend, Stream stream) {
    kernels::softmax(backend, {kept.data(), kept.data(), s.H * s.B * s.T, s.T, s.scale(), s.causal, s.dtype, s.dtype},
                     stream);
  });
  for (int h = 0; h < s.H; ++h) products().gather(kept, v, o, h);
}

void CublasltAttention::backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor&, const Tensor& d_o,
                                 const Tensor& kept, const Tensor& dq, const Tensor& dk, const Tensor& dv) {
  const Problem& s = problem_;
  if (!ds_.defined()) ds_ = this->kept();
  for (int h = 0; h < s.H; ++h) products().score(d_o, v, ds_, h), products().scatter(kept, d_o, dv, h);
  on(device_, "softmax_backward", [&](auto backend, Stream stream) {
    kernels::softmax_backward(backend, {kept.data(), ds_.data(), ds_.data(), s.H * s.B * s.T, s.T, s.scale(), s.dtype},
                              stream);
  });
  for (int h = 0; h < s.H; ++h) products().gather(ds_, k, dq, h), products().scatter(ds_, q, dk, h);
}
#else
struct CublasltAttention::Products {};

namespace {
constexpr const char* kAbsent = "this build has no cuda device, and so no cuBLASLt (-DNANOVLM_GPU=ON)";
}

void CublasltAttention::forward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  fail(kAbsent);
}
void CublasltAttention::backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                 const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  fail(kAbsent);
}
#endif

CublasltAttention::CublasltAttention(const Problem& problem, const Device& device)
    : problem_(problem), device_(device) {}
CublasltAttention::~CublasltAttention() = default;

Tensor CublasltAttention::kept() const {
  return empty({problem_.H, problem_.B, problem_.T, problem_.T}, problem_.dtype, device_);
}

}  // namespace nanovlm::bench
