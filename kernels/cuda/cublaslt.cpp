#include "kernels/cuda/cublaslt.h"

#include <dlfcn.h>

#include <stdexcept>

namespace nanovlm::cuda {
namespace {

// Never closed: the CUDA libraries have threads and exit handlers of their own.
void* open_library() {
  const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
  if (void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
  const std::string said = dlerror();
  if (void* library = dlopen((NANOVLM_CUDA_LIBRARIES "/" + name).c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
  throw std::runtime_error("device cuda: matrix products need " + name + " of the CUDA toolkit: " + said +
                           " (LD_LIBRARY_PATH tells where to look)");
}

template <class F>
void find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  if (!function) throw std::runtime_error(std::string("device cuda: cuBLASLt has no ") + name);
}

}  // namespace

CublasLt::CublasLt() {
  void* library = open_library();
  find(library, "cublasLtCreate", create);
  find(library, "cublasLtDestroy", destroy);
  find(library, "cublasLtGetStatusString", status_string);
  find(library, "cublasLtMatmul", matmul);
  find(library, "cublasLtMatmulDescCreate", desc_create);
  find(library, "cublasLtMatmulDescDestroy", desc_destroy);
  find(library, "cublasLtMatmulDescSetAttribute", desc_set);
  find(library, "cublasLtMatrixLayoutCreate", layout_create);
  find(library, "cublasLtMatrixLayoutDestroy", layout_destroy);
  find(library, "cublasLtMatrixLayoutSetAttribute", layout_set);
  find(library, "cublasLtMatmulPreferenceCreate", preference_create);
  find(library, "cublasLtMatmulPreferenceDestroy", preference_destroy);
  find(library, "cublasLtMatmulPreferenceSetAttribute", preference_set);
  find(library, "cublasLtMatmulAlgoGetHeuristic", heuristic);
  find(library, "cublasLtMatmulAlgoCheck", algo_check);
}

}  // namespace nanovlm::cuda
