// A product as cuBLASLt has it described. Its matrices are column-major, so for c = op(a) op(b) of row-major ones it is
// asked for c^T = op(b)^T op(a)^T: its A is our b, its B our a.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/cuda/cublaslt.h"
#include "kernels/types.h"

namespace nanovlm::cuda {

constexpr int64_t kLtWorkspace = int64_t{32} << 20;  // bytes, what the manual advises for Hopper

inline cudaDataType_t type_of(DType dtype) { return dtype == DType::f32 ? CUDA_R_32F : CUDA_R_16BF; }

// Row-major matrices as they lie, before op: one, or a batch of them.
struct LtMatrix {
  DType dtype;
  int64_t rows, columns;
  int64_t stride;  // elements between rows
  int32_t batch = 1;
  int64_t offset = 0;  // elements between matrices of a batch
};

struct LtProduct {
  LtProduct(const CublasLt& library, const LtMatrix& a, bool transpose_a, const LtMatrix& b, bool transpose_b,
            const LtMatrix& c);

  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    library.check(library.desc_set(desc.get(), attribute, &value, sizeof value), "matmul");
  }

  // At most so many algorithms for operands at multiples of `alignment` bytes, the library's favourite first: those
  // that need no more than kLtWorkspace and add the parts of a sum in fp32, in a fixed order. `status` is what the
  // library says, and where that is no success there are none.
  std::vector<cublasLtMatmulHeuristicResult_t> proposals(cublasLtHandle_t handle, uint32_t alignment, int most,
                                                         cublasStatus_t& status) const;
  // Whether an algorithm that was proposed for another product fits this one.
  bool fits(cublasLtHandle_t handle, const cublasLtMatmulAlgo_t& algorithm) const;
  // d = op(a) op(b) + beta c, in the stream's order. d may be c. workspace: kLtWorkspace bytes.
  cublasStatus_t run(cublasLtHandle_t handle, const void* a, const void* b, const void* c, void* d, float beta,
                     const cublasLtMatmulAlgo_t& algorithm, void* workspace, cudaStream_t stream) const;

  const CublasLt& library;
  LtDesc desc;
  LtLayout a, b, c;  // ours
};

}  // namespace nanovlm::cuda
