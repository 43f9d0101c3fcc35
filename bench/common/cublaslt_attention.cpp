#include "bench/common/cublaslt_attention.h"

#include "engine/error.h"
#include "kernels/softmax/softmax.h"

#if defined(NANOVLM_CUDA_KERNELS)
#include <bit>
#include <string>

#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/gpu.h"
#endif

namespace nanovlm::bench {

#if defined(NANOVLM_CUDA_KERNELS)
namespace {

constexpr int64_t kWorkspace = int64_t{32} << 20;  // bytes, what the manual advises for Hopper
const std::string kName = "attention by cuBLASLt";

// The library, and what all of its products share.
struct Shared {
  explicit Shared(const Device& device) : workspace(empty({kWorkspace}, DType::u8, device)) {
    cublasLtHandle_t made = nullptr;
    library.check(library.create(&made), kName);
    handle = cuda::LtHandle(made, {&library});
  }

  cuda::CublasLt library;
  cuda::LtHandle handle;
  Tensor workspace;
};

// Row-major matrices, one a sequence.
struct Matrices {
  int64_t rows, columns;
  int64_t stride;  // elements between rows
  int64_t offset;  // elements between sequences
};

// c = op(a) op(b), or grows by it, in all of B sequences. cuBLASLt's matrices are column-major, so it is asked for
// c^T = op(b)^T op(a)^T: its A is our b, its B our a.
class Product {
 public:
  Product(const Shared& shared, int64_t B, DType dtype, uint32_t alignment, const Matrices& a, bool transpose_a,
          const Matrices& b, bool transpose_b, const Matrices& c)
      : shared_(shared), library_(shared.library) {
    cublasLtMatmulDesc_t made = nullptr;
    library_.check(library_.desc_create(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F), kName);
    product_ = cuda::LtDesc(made, {&library_});
    set(CUBLASLT_MATMUL_DESC_TRANSA, transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    a_ = layout(B, dtype, a), b_ = layout(B, dtype, b), c_ = layout(B, dtype, c);
    choose(alignment);
  }

  void run(const void* a, const void* b, void* c, bool add, CUstream_st* stream) const {
    const float one = 1, beta = add ? 1 : 0;
    library_.check(library_.matmul(shared_.handle.get(), product_.get(), &one, b, b_.get(), a, a_.get(), &beta, c,
                                   c_.get(), c, c_.get(), &algorithm_, shared_.workspace.data(), kWorkspace, stream),
                   kName);
  }

 private:
  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    library_.check(library_.desc_set(product_.get(), attribute, &value, sizeof value), kName);
  }
  cuda::LtLayout layout(int64_t B, DType dtype, const Matrices& of) const {
    cublasLtMatrixLayout_t made = nullptr;
    library_.check(library_.layout_create(&made, dtype == DType::f32 ? CUDA_R_32F : CUDA_R_16BF,
                                          static_cast<uint64_t>(of.columns), static_cast<uint64_t>(of.rows), of.stride),
                   kName);
    cuda::LtLayout owned(made, {&library_});
    const int32_t batch = static_cast<int32_t>(B);
    library_.check(library_.layout_set(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch), kName);
    library_.check(library_.layout_set(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &of.offset, sizeof of.offset),
                   kName);
    return owned;
  }
  // The library's favourite among the algorithms for operands that lie at multiples of so many bytes.
  void choose(uint32_t alignment) {
    cublasLtMatmulPreference_t made = nullptr;
    library_.check(library_.preference_create(&made), kName);
    const cuda::LtPreference preference(made, {&library_});
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      library_.check(library_.preference_set(made, attribute, &value, sizeof value), kName);
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspace});
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      prefer(attribute, alignment);
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    library_.check(library_.heuristic(shared_.handle.get(), product_.get(), b_.get(), a_.get(), c_.get(), c_.get(),
                                      made, 1, &found, &count),
                   kName);
    check(count == 1 && found.state == CUBLAS_STATUS_SUCCESS, kName, ": the library has no algorithm for it");
    algorithm_ = found.algo;
  }

  const Shared& shared_;
  const cuda::CublasLt& library_;
  cuda::LtDesc product_;
  cuda::LtLayout a_, b_, c_;
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
  Products(const Problem& s, const Device& device)
      : s(s), shared(device), stream(device.context().gpu->compute_stream()) {}

  // to = a b^T: scores from queries and keys
  void score(const Tensor& a, const Tensor& b, const Tensor& to, int h) const {
    to_scores.run(query(a, h), key(b, h), score(to, h), false, stream);
  }
  // to = scores b
  void gather(const Tensor& scores, const Tensor& b, const Tensor& to, int h) const {
    to_queries.run(score(scores, h), key(b, h), query(to, h), false, stream);
  }
  // to = scores^T a, summed up over the heads of a group
  void scatter(const Tensor& scores, const Tensor& a, const Tensor& to, int h) const {
    to_keys.run(score(scores, h), query(a, h), key(to, h), h % (s.H / s.G) > 0, stream);
  }

 private:
  void* query(const Tensor& x, int h) const { return head_of(x, int64_t{h} * s.D); }
  void* key(const Tensor& x, int h) const { return head_of(x, int64_t{h / (s.H / s.G)} * s.D); }
  void* score(const Tensor& x, int h) const { return head_of(x, h * s.B * s.T * s.T); }

  Problem s;
  Shared shared;
  CUstream_st* stream;
  Matrices queries{s.T, s.D, int64_t{s.H} * s.D, s.T*s.H*s.D}, keys{s.T, s.D, int64_t{s.G} * s.D, s.T*s.G*s.D};
  Matrices scores{s.T, s.T, s.T, s.T* s.T};
  Product to_scores{shared, s.B, s.dtype, alignment_of(s), queries, false, keys, true, scores};
  Product to_queries{shared, s.B, s.dtype, alignment_of(s), scores, false, keys, false, queries};
  Product to_keys{shared, s.B, s.dtype, alignment_of(s), scores, true, queries, false, keys};
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
