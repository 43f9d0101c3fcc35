// Matrix products by cuBLASLt, with bias, addition and GELU in its epilogue, and its algorithms chosen by measurement.
//
// The library proposes algorithms for a shape, and the first time a shape is met they are timed. Only those count that
// give the bits of the library's own favourite, in so many numbers that another order of sums would show: so a choice
// that timing noise can sway never changes a result, and two runs agree to the bit. Sizes are measured in steps of an
// eighth of their power of two, since the number of packed rows is another in nearly every batch; what was chosen for a
// step is checked for each size in it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/gpu.h"
#include "kernels/matmul/matmul.h"

namespace nanovlm::cuda {

// Memory straight from a GPU, given back to it.
struct GiveBack {
  Gpu* gpu;
  void operator()(void* memory) const { gpu->give_back(memory); }
};
using GpuMemory = std::unique_ptr<void, GiveBack>;

// "matmul 512 x 576 x 576, bf16 to f32"
std::string describe_product(int64_t M, int64_t N, int64_t K, DType in, DType out);

// What is made of a product's sums, beside bias and addition, before they are stored as c.
struct Epilogue {
  enum Kind : uint8_t { none, gelu, gelu_backward } kind = none;
  void* x = nullptr;              // [M, N] out: what gelu is taken of, written by it unless null; read by gelu_backward
  void* bias_gradient = nullptr;  // [N] out: gelu_backward sets it to the sums of c's columns, unless null
};

class Products {
 public:
  explicit Products(Gpu& gpu);
  ~Products();
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;

  // M, N, K > 0.
  void run(const kernels::Matmul& a);
  // False, with nothing done, where the library has no algorithm for it.
  bool run(const kernels::Matmul& a, const Epilogue& epilogue);

 private:
  // What tells products apart. Pointers matter by their alignment alone.
  struct Form {
    int64_t M, N, K;
    bool transpose_a, transpose_b, accumulate;
    cublasLtEpilogue_t epilogue;
    DType in, out;
    uint32_t alignment;  // bytes, at most 256: of the pointer that has the least
    bool operator<(const Form& other) const;
  };
  static Form form_of(const kernels::Matmul& a, const Epilogue& epilogue);
  static Form rounded_up(const Form& form);

  // Where a call's operands lie, row-major.
  struct Addresses {
    const void *a, *b, *c;
    void* d;           // the result, which may be c
    const void* bias;  // or its gradient
    void* x;           // GELU's argument
  };

  struct Prepared;  // a form's descriptors and algorithm
  struct Operands;  // numbers to measure with
  using Candidates = std::vector<cublasLtMatmulHeuristicResult_t>;

  Prepared& prepared(const Form& form);
  Candidates candidates(const Prepared& prepared, int most) const;  // the library's favourite first; maybe none
  std::optional<cublasLtMatmulAlgo_t> chosen(const Form& rounded);
  cublasLtMatmulAlgo_t measure(Prepared& product, const Candidates& all);
  float milliseconds(Prepared& product, const Addresses& on, const cublasLtMatmulAlgo_t& algorithm);
  cublasStatus_t launch(Prepared& prepared, const Addresses& on, const cublasLtMatmulAlgo_t& algorithm) const;

  Gpu& gpu_;
  CublasLt library_;
  LtHandle handle_;
  GpuMemory workspace_;
  std::map<Form, std::unique_ptr<Prepared>> prepared_;
  std::map<Form, std::optional<cublasLtMatmulAlgo_t>> chosen_;  // by rounded form
};

}  // namespace nanovlm::cuda
