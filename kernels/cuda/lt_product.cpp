#include "kernels/cuda/lt_product.h"

namespace nanovlm::cuda {
namespace {

LtDesc desc_of(const CublasLt& library) {
  cublasLtMatmulDesc_t made = nullptr;
  library.check(library.desc_create(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F), "matmul");
  return LtDesc(made, {&library});
}

LtLayout layout_of(const CublasLt& library, const LtMatrix& matrix) {
  cublasLtMatrixLayout_t made = nullptr;
  library.check(library.layout_create(&made, type_of(matrix.dtype), static_cast<uint64_t>(matrix.columns),
                                      static_cast<uint64_t>(matrix.rows), matrix.stride),
                "matmul");
  LtLayout layout(made, {&library});
  if (matrix.batch == 1) return layout;
  const auto set = [&](cublasLtMatrixLayoutAttribute_t attribute, const auto& value) {
    library.check(library.layout_set(made, attribute, &value, sizeof value), "matmul");
  };
  set(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, matrix.batch);
  set(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, matrix.offset);
  return layout;
}

}  // namespace

LtProduct::LtProduct(const CublasLt& library, const LtMatrix& a, bool transpose_a, const LtMatrix& b, bool transpose_b,
                     const LtMatrix& c)
    : library(library),
      desc(desc_of(library)),
      a(layout_of(library, a)),
      b(layout_of(library, b)),
      c(layout_of(library, c)) {
  set(CUBLASLT_MATMUL_DESC_TRANSA, transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
}

std::vector<cublasLtMatmulHeuristicResult_t> LtProduct::proposals(cublasLtHandle_t handle, uint32_t alignment, int most,
                                                                  cublasStatus_t& status) const {
  cublasLtMatmulPreference_t made = nullptr;
  library.check(library.preference_create(&made), "matmul");
  const LtPreference preference(made, {&library});
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    library.check(library.preference_set(made, attribute, &value, sizeof value), "matmul");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kLtWorkspace});
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  for (const auto attribute : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                               CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    prefer(attribute, alignment);

  std::vector<cublasLtMatmulHeuristicResult_t> found(static_cast<size_t>(most));
  int count = 0;
  status = library.heuristic(handle, desc.get(), b.get(), a.get(), c.get(), c.get(), preference.get(), most,
                             found.data(), &count);
  found.resize(status == CUBLAS_STATUS_SUCCESS ? static_cast<size_t>(count) : 0);
  std::erase_if(found, [](const auto& result) { return result.state != CUBLAS_STATUS_SUCCESS; });
  return found;
}

bool LtProduct::fits(cublasLtHandle_t handle, const cublasLtMatmulAlgo_t& algorithm) const {
  cublasLtMatmulHeuristicResult_t fit{};
  return library.algo_check(handle, desc.get(), b.get(), a.get(), c.get(), c.get(), &algorithm, &fit) ==
             CUBLAS_STATUS_SUCCESS &&
         fit.workspaceSize <= static_cast<size_t>(kLtWorkspace);
}

cublasStatus_t LtProduct::run(cublasLtHandle_t handle, const void* a_data, const void* b_data, const void* c_data,
                              void* d_data, float beta, const cublasLtMatmulAlgo_t& algorithm, void* workspace,
                              cudaStream_t stream) const {
  const float one = 1;
  return library.matmul(handle, desc.get(), &one, b_data, b.get(), a_data, a.get(), &beta, c_data, c.get(), d_data,
                        c.get(), &algorithm, workspace, kLtWorkspace, stream);
}

}  // namespace nanovlm::cuda
