// cuBLASLt, found when the first matrix product is asked for.
//
// It is loaded by name instead of linked, since a program whose dynamic libraries are not there does not start at all:
// so one binary runs on machines without the CUDA toolkit (on cpu), and a toolkit whose libraries lie in no standard
// place is found where the build saw it. The runtime library is linked statically for the same reason.
#pragma once
#include <memory>
#include <stdexcept>
#include <string>

#include <cublasLt.h>

namespace nanovlm::cuda {

struct CublasLt {
  CublasLt();  // throws std::runtime_error with what the loader says

  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtGetStatusString) status_string;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatrixLayoutSetAttribute) layout_set;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulAlgoCheck) algo_check;

  // Throws where a call failed; `what` names it.
  void check(cublasStatus_t status, const std::string& what) const {
    if (status != CUBLAS_STATUS_SUCCESS) throw std::runtime_error(what + ": cuBLASLt says: " + status_string(status));
  }
};

// What the library makes, given back to it: kDestroy is one of its functions above.
template <auto kDestroy>
struct Destroy {
  const CublasLt* library;
  template <class Opaque>
  void operator()(Opaque* it) const {
    (library->*kDestroy)(it);
  }
};
using LtHandle = std::unique_ptr<cublasLtContext, Destroy<&CublasLt::destroy>>;
using LtDesc = std::unique_ptr<cublasLtMatmulDescOpaque_t, Destroy<&CublasLt::desc_destroy>>;
using LtLayout = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, Destroy<&CublasLt::layout_destroy>>;
using LtPreference = std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, Destroy<&CublasLt::preference_destroy>>;

}  // namespace nanovlm::cuda
