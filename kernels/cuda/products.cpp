#include "kernels/cuda/products.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <iostream>
#include <random>

#include "kernels/cuda/check.h"
#include "kernels/cuda/lt_product.h"

namespace nanovlm::cuda {
namespace {

constexpr int kCandidates = 16, kTimed = 4;          // algorithms of a shape; launches of each
constexpr int64_t kLargestTrial = int64_t{2} << 30;  // bytes of operands; larger products are not measured
constexpr size_t kPattern = size_t{1} << 20;
constexpr int64_t kSampledRows = 31;  // one in so many is compared at least: each tile of any algorithm has some
constexpr size_t kKept = 512;         // prepared forms: training with packed rows meets a few in every batch

uint32_t alignment_of(const void* pointer) {
  return static_cast<uint32_t>(
      std::min<uint64_t>(256, uint64_t{1} << std::countr_zero(reinterpret_cast<uintptr_t>(pointer) | 256)));
}

cublasLtEpilogue_t epilogue_of(const kernels::Matmul& a, const Epilogue& epilogue) {
  if (epilogue.kind == Epilogue::gelu_backward)
    return epilogue.bias_gradient ? CUBLASLT_EPILOGUE_DGELU_BGRAD : CUBLASLT_EPILOGUE_DGELU;
  if (epilogue.kind == Epilogue::none) return a.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  if (epilogue.x) return a.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
  return a.bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
}

bool has_x(cublasLtEpilogue_t epilogue) {
  return epilogue == CUBLASLT_EPILOGUE_GELU_AUX || epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS ||
         epilogue == CUBLASLT_EPILOGUE_DGELU || epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD;
}

// A bias, or the gradient of one: the library has one place for both.
bool has_bias(cublasLtEpilogue_t epilogue) {
  return epilogue == CUBLASLT_EPILOGUE_BIAS || epilogue == CUBLASLT_EPILOGUE_GELU_BIAS ||
         epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS || epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD;
}

int64_t rounded_up(int64_t size) {
  const int64_t step = std::max<int64_t>(1, static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(size))) / 8);
  return ceil_div(size, step) * step;
}

// How many numbers of a result show that its sums were made in another order. That changes the last bits of about every
// second fp32 number, but only one bf16 number in some ten thousand.
int64_t telling_numbers(DType out) { return out == DType::f32 ? 1 << 8 : 1 << 18; }

}  // namespace

std::string describe_product(int64_t M, int64_t N, int64_t K, DType in, DType out) {
  return "matmul " + std::to_string(M) + " x " + std::to_string(N) + " x " + std::to_string(K) + ", " + name_of(in) +
         " to " + name_of(out);
}

bool Products::Form::operator<(const Form& other) const {
  const auto key = [](const Form& f) {
    return std::tie(f.M, f.N, f.K, f.transpose_a, f.transpose_b, f.accumulate, f.epilogue, f.in, f.out, f.alignment);
  };
  return key(*this) < key(other);
}

Products::Form Products::form_of(const kernels::Matmul& a, const Epilogue& epilogue) {
  // Null is aligned to anything.
  const uint32_t alignment = std::min({alignment_of(a.a), alignment_of(a.b), alignment_of(a.c), alignment_of(a.bias),
                                       alignment_of(epilogue.x), alignment_of(epilogue.bias_gradient)});
  return {a.M, a.N, a.K, a.transpose_a, a.transpose_b, a.accumulate, epilogue_of(a, epilogue), a.in, a.out, alignment};
}

Products::Form Products::rounded_up(const Form& form) {
  Form rounded = form;
  for (int64_t* size : {&rounded.M, &rounded.N, &rounded.K}) *size = cuda::rounded_up(*size);
  return rounded;
}

// The bias runs along the rows of the library's column-major result, as does the bias gradient.
struct Products::Prepared {
  Prepared(const CublasLt& library, const Form& form)
      : form(form),
        product(library, matrix(form.in, form.M, form.K, form.transpose_a), form.transpose_a,
                matrix(form.in, form.K, form.N, form.transpose_b), form.transpose_b,
                matrix(form.out, form.M, form.N, false)) {
    product.set(CUBLASLT_MATMUL_DESC_EPILOGUE, form.epilogue);
    if (has_bias(form.epilogue)) product.set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(form.out));
    if (has_x(form.epilogue)) product.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, form.N);  // its dtype is the result's
    // Algorithms are sought for a pointer's alignment; launch() puts the true one in its place.
    void* const aligned = reinterpret_cast<void*>(uintptr_t{form.alignment});
    set_epilogue(aligned, aligned);
  }
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;

  void set_epilogue(const void* bias, void* x) {
    if (has_bias(form.epilogue)) product.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    if (has_x(form.epilogue)) product.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, x);
  }
  // What op makes rows x columns of, without gaps.
  static LtMatrix matrix(DType dtype, int64_t rows, int64_t columns, bool transposed) {
    if (transposed) std::swap(rows, columns);
    return {dtype, rows, columns, columns};
  }

  Form form;
  LtProduct product;
  std::optional<cublasLtMatmulAlgo_t> algorithm;  // none: the library has none for this form
};

// Pseudorandom numbers for every operand of a form: a chip's clock, and so the time, depends on the bits it multiplies.
struct Products::Operands {
  Operands(Gpu& gpu_in, const Form& form)
      : gpu(gpu_in),
        a(filled(form.M * form.K * size_of(form.in), form.in)),
        b(filled(form.K * form.N * size_of(form.in), form.in)),
        c(filled(form.M * form.N * size_of(form.out), form.out)),
        bias(filled(form.N * size_of(form.out), form.out)) {
    complete = a && b && c && bias;
    for (Result* result : {&favourite, &other}) {
      result->d = taken(form.M * form.N * size_of(form.out));
      if (has_x(form.epilogue)) result->x = filled(form.M * form.N * size_of(form.out), form.out);
      complete = complete && result->d && (result->x || !has_x(form.epilogue));
    }
  }

  // What is compared: x is written by GELU, and its gradient reads the same numbers from either.
  struct Result {
    GpuMemory d, x;
  };
  Addresses into(const Result& result) const {
    return {a.get(), b.get(), c.get(), result.d.get(), bias.get(), result.x.get()};
  }

  GpuMemory taken(int64_t bytes) const { return GpuMemory(gpu.take(static_cast<size_t>(bytes)), {&gpu}); }

  GpuMemory filled(int64_t bytes, DType dtype) const {
    const size_t size = static_cast<size_t>(bytes), known = std::min(size, kPattern);
    GpuMemory owned = taken(bytes);
    if (!owned) return owned;
    char* const memory = static_cast<char*>(owned.get());
    std::mt19937 random(1);
    std::vector<char> pattern(known);
    for (size_t i = 0; i + 4 <= known; i += 4) {
      const float value = static_cast<float>(random()) / 4294967296.0f - 0.5f;
      const uint32_t low = bf16(value).bits, high = bf16(value * 0.7f).bits;
      const uint32_t word = dtype == DType::f32 ? std::bit_cast<uint32_t>(value) : low | high << 16;
      std::memcpy(pattern.data() + i, &word, 4);
    }
    gpu.upload(memory, pattern.data(), known);
    for (size_t at = known; at < size; at += known)
      check(cudaMemcpyAsync(memory + at, memory, std::min(known, size - at), cudaMemcpyDeviceToDevice,
                            gpu.compute_stream()),
            "matmul");
    return owned;
  }

  Gpu& gpu;
  GpuMemory a, b, c, bias;
  Result favourite, other;
  bool complete;  // there was memory for all
};

Products::Products(Gpu& gpu) : gpu_(gpu) {
  cublasLtHandle_t handle = nullptr;
  library_.check(library_.create(&handle), "device cuda: cuBLASLt");
  handle_ = LtHandle(handle, {&library_});
  workspace_ = GpuMemory(gpu_.take(kLtWorkspace), {&gpu_});
  if (!workspace_) throw std::runtime_error("device cuda: no 32 MiB for the workspace of matrix products");
}

Products::~Products() = default;

void Products::run(const kernels::Matmul& a) {
  if (!run(a, {}))
    throw std::runtime_error(describe_product(a.M, a.N, a.K, a.in, a.out) + ": cuBLASLt has no algorithm for it");
}

bool Products::run(const kernels::Matmul& a, const Epilogue& epilogue) {
  Prepared& product = prepared(form_of(a, epilogue));
  if (!product.algorithm) return false;
  const void* bias = epilogue.bias_gradient ? epilogue.bias_gradient : a.bias;
  const cublasStatus_t status = launch(product, {a.a, a.b, a.c, a.c, bias, epilogue.x}, *product.algorithm);
  if (status != CUBLAS_STATUS_SUCCESS) library_.check(status, describe_product(a.M, a.N, a.K, a.in, a.out));
  gpu_.launched(a);
  return true;
}

cublasStatus_t Products::launch(Prepared& prepared, const Addresses& on, const cublasLtMatmulAlgo_t& algorithm) const {
  prepared.set_epilogue(on.bias, on.x);
  return prepared.product.run(handle_.get(), on.a, on.b, on.c, on.d, prepared.form.accumulate ? 1 : 0, algorithm,
                              workspace_.get(), gpu_.compute_stream());
}

Products::Prepared& Products::prepared(const Form& form) {
  if (const auto found = prepared_.find(form); found != prepared_.end()) return *found->second;
  auto product = std::make_unique<Prepared>(library_, form);
  const Candidates own = candidates(*product, 1);
  if (!own.empty()) {
    const std::optional<cublasLtMatmulAlgo_t> algorithm = chosen(rounded_up(form));
    const bool fits = algorithm && product->product.fits(handle_.get(), *algorithm);
    product->algorithm = fits ? *algorithm : own.front().algo;
  }
  if (prepared_.size() == kKept) prepared_.clear();
  return *(prepared_[form] = std::move(product));
}

Products::Candidates Products::candidates(const Prepared& prepared, int most) const {
  const Form& form = prepared.form;
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
  Candidates found = prepared.product.proposals(handle_.get(), form.alignment, most, status);
  // The second is what the library says where it cannot take x as it lies.
  const bool none =
      status == CUBLAS_STATUS_NOT_SUPPORTED || (status == CUBLAS_STATUS_INVALID_VALUE && has_x(form.epilogue));
  if (!none) library_.check(status, describe_product(form.M, form.N, form.K, form.in, form.out));
  return found;
}

std::optional<cublasLtMatmulAlgo_t> Products::chosen(const Form& rounded) {
  if (const auto found = chosen_.find(rounded); found != chosen_.end()) return found->second;
  Prepared product(library_, rounded);
  const Candidates all = candidates(product, kCandidates);
  std::optional<cublasLtMatmulAlgo_t>& algorithm = chosen_[rounded];
  if (!all.empty()) algorithm = measure(product, all);
  return algorithm;
}

// Which of `all`, the favourite first, takes the least time among those that give its bits. Where these cannot tell
// algorithms apart that add in different orders it is the favourite: results of few numbers, and the bias gradient,
// which is one row. So it is without memory to measure with, whose bits are then the same.
cublasLtMatmulAlgo_t Products::measure(Prepared& product, const Candidates& all) {
  const Form& form = product.form;
  cublasLtMatmulAlgo_t best = all.front().algo;
  const int64_t bytes = (form.M * form.K + form.K * form.N) * size_of(form.in) +
                        (has_x(form.epilogue) ? 5 : 3) * form.M * form.N * size_of(form.out);
  const int64_t step = std::min(form.M * form.N / telling_numbers(form.out), kSampledRows);
  if (all.size() == 1 || step == 0 || form.epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD || bytes > kLargestTrial)
    return best;
  const Operands operands(gpu_, form);
  if (!operands.complete) return best;

  const size_t row = static_cast<size_t>(form.N * size_of(form.out));
  const size_t rows = static_cast<size_t>(ceil_div(form.M, step));
  const auto sample = [&](const Operands::Result& result) {
    std::vector<char> bytes((result.x ? 2 : 1) * rows * row);
    char* to = bytes.data();
    for (const GpuMemory* matrix : {&result.d, &result.x}) {
      if (!*matrix) continue;
      check(cudaMemcpy2DAsync(to, row, matrix->get(), static_cast<size_t>(step) * row, row, rows,
                              cudaMemcpyDeviceToHost, gpu_.compute_stream()),
            "matmul");
      to += rows * row;
    }
    gpu_.synchronise("matmul");
    return bytes;
  };
  const float favourite = milliseconds(product, operands.into(operands.favourite), best);
  float least = favourite, least_of_all = favourite;
  const std::vector<char> expected = sample(operands.favourite);
  for (size_t i = 1; i < all.size(); ++i) {
    const float time = milliseconds(product, operands.into(operands.other), all[i].algo);
    least_of_all = std::min(least_of_all, time);
    if (time >= least || sample(operands.other) != expected) continue;
    least = time;
    best = all[i].algo;
  }
  if (gpu_.waits_for_launches())  // NANOVLM_DEBUG=2
    std::cerr << describe_product(form.M, form.N, form.K, form.in, form.out) << ": "
              << 2e-9 * static_cast<double>(form.M * form.N * form.K) / least << " TFLOP/s, the library's favourite "
              << 2e-9 * static_cast<double>(form.M * form.N * form.K) / favourite << ", the fastest of " << all.size()
              << ' ' << 2e-9 * static_cast<double>(form.M * form.N * form.K) / least_of_all << '\n';
  return best;
}

float Products::milliseconds(Prepared& product, const Addresses& on, const cublasLtMatmulAlgo_t& algorithm) {
  const auto run = [&] { return launch(product, on, algorithm); };
  if (run() != CUBLAS_STATUS_SUCCESS) {
    cudaGetLastError();  // or the next launch would take it for its own
    return INFINITY;
  }
  const Event begin = make_event(cudaEventDefault, "matmul"), end = make_event(cudaEventDefault, "matmul");
  check(cudaEventRecord(begin.get(), gpu_.compute_stream()), "matmul");
  for (int i = 0; i < kTimed; ++i) library_.check(run(), "matmul: measuring an algorithm");
  check(cudaEventRecord(end.get(), gpu_.compute_stream()), "matmul");
  check(cudaEventSynchronize(end.get()), "matmul: measuring an algorithm");
  float time = 0;
  check(cudaEventElapsedTime(&time, begin.get(), end.get()), "matmul");
  return time / kTimed;
}

}  // namespace nanovlm::cuda
