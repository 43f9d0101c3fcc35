// cuBLASLt for the stand-in GPU, from its manual: column-major matrices, and epilogues that take the fp32 sums. Plain
// loops, which the stream's queue gets. Several algorithms, so that what kernels/cuda/products.h promises can fail:
// they differ in the order of sums, in the alignment that they need, and by chance in time.
#include "kernels/cuda/cublaslt.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/stand_in/runtime.h"
#include "kernels/types.h"

namespace nanovlm::cuda {
namespace {

// What stands behind the library's opaque handles.
struct Desc {
  cublasOperation_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  void *bias = nullptr, *aux = nullptr;
  cudaDataType_t bias_type = CUDA_R_32F;
  int64_t aux_rows = 0;  // between columns
};
struct Layout {
  cudaDataType_t type;
  uint64_t rows, columns;
  int64_t stride;      // between columns
  int32_t batch = 1;   // matrices
  int64_t offset = 0;  // between matrices

  bool operator==(const Layout&) const = default;
};
struct Preference {
  uint64_t workspace = 0;
  uint32_t alignment = 256;  // the least of all operands'
};

template <class T, class Handle>
const T& of(Handle handle) {
  return *reinterpret_cast<const T*>(handle);
}

// In the order in which the heuristic proposes them. The second has the first one's bits, the third has not.
enum class Algorithm : uint64_t { favourite, vectors, backwards };
constexpr uint32_t kVectorAlignment = 16;  // bytes that Algorithm::vectors asks for

bool has(cublasLtEpilogue_t epilogue, int bit) { return static_cast<int>(epilogue) & bit; }
constexpr int kBias = CUBLASLT_EPILOGUE_BIAS, kGelu = CUBLASLT_EPILOGUE_GELU, kAux = 128, kBiasGradient = 16;
constexpr int kGeluBackward = CUBLASLT_EPILOGUE_DGELU & ~kAux;

float get(const void* from, cudaDataType_t type, int64_t i) {
  return type == CUDA_R_32F ? static_cast<const float*>(from)[i]
                            : static_cast<float>(static_cast<const bf16*>(from)[i]);
}
void put(void* to, cudaDataType_t type, int64_t i, float value) {
  if (type == CUDA_R_32F)
    static_cast<float*>(to)[i] = value;
  else
    static_cast<bf16*>(to)[i] = bf16(value);
}

float gelu(float x) { return 0.5f * x * (1 + std::tanh(0.7978845608f * (x + 0.044715f * x * x * x))); }
float gelu_slope(float x) {
  const float t = std::tanh(0.7978845608f * (x + 0.044715f * x * x * x));
  return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.7978845608f * (1 + 3 * 0.044715f * x * x);
}

struct Product {
  Desc desc;
  Layout a, b, c;
  const void *a_data, *b_data, *c_data;
  void* d_data;
  float alpha, beta;
  Algorithm algorithm;

  // Of one matrix of a batch.
  Product of(int32_t i) const {
    const auto moved = [i](const Layout& layout, const void* data) {
      return static_cast<const char*>(data) + i * layout.offset * (layout.type == CUDA_R_32F ? 4 : 2);
    };
    Product one = *this;
    one.a_data = moved(a, a_data), one.b_data = moved(b, b_data), one.c_data = moved(c, c_data);
    one.d_data = const_cast<char*>(moved(c, d_data));
    return one;
  }

  // op(a) as [terms, rows of c], so that the sums of a column are made side by side.
  std::vector<float> terms_of_a(int64_t terms) const {
    const int64_t rows = static_cast<int64_t>(c.rows);
    const bool transposed = desc.transpose_a == CUBLAS_OP_T;
    std::vector<float> values(static_cast<size_t>(terms * rows));
    for (int64_t k = 0; k < terms; ++k)
      for (int64_t m = 0; m < rows; ++m)
        values[static_cast<size_t>(k * rows + m)] =
            get(a_data, a.type, transposed ? k + m * a.stride : m + k * a.stride);
    return values;
  }

  void run() const {
    const int64_t rows = static_cast<int64_t>(c.rows), columns = static_cast<int64_t>(c.columns);
    const int64_t terms = static_cast<int64_t>(desc.transpose_a == CUBLAS_OP_T ? a.rows : a.columns);
    const std::vector<float> op_a = terms_of_a(terms);
    std::vector<float> sums(c.rows), bias_gradient(c.rows);
    for (int64_t n = 0; n < columns; ++n) {
      std::fill(sums.begin(), sums.end(), 0.0f);
      for (int64_t i = 0; i < terms; ++i) {
        const int64_t k = algorithm == Algorithm::backwards ? terms - 1 - i : i;
        const float factor = get(b_data, b.type, desc.transpose_b == CUBLAS_OP_T ? n + k * b.stride : k + n * b.stride);
        const float* const of_k = op_a.data() + k * rows;
        for (int64_t m = 0; m < rows; ++m) sums[static_cast<size_t>(m)] += of_k[m] * factor;
      }
      for (int64_t m = 0; m < rows; ++m)
        bias_gradient[static_cast<size_t>(m)] += finish(m, n, alpha * sums[static_cast<size_t>(m)]);
    }
    if (!has(desc.epilogue, kBiasGradient)) return;
    for (int64_t m = 0; m < rows; ++m) put(desc.bias, desc.bias_type, m, bias_gradient[static_cast<size_t>(m)]);
  }

  // Stores what the epilogue makes of a sum, and returns it.
  float finish(int64_t m, int64_t n, float x) const {
    const int64_t at = m + n * c.stride, at_aux = m + n * desc.aux_rows;
    if (beta != 0) x += beta * get(c_data, c.type, at);
    if (has(desc.epilogue, kBias)) x += get(desc.bias, desc.bias_type, m);
    if (has(desc.epilogue, kGelu)) {
      if (has(desc.epilogue, kAux)) put(desc.aux, c.type, at_aux, x);
      x = gelu(x);
    }
    if (has(desc.epilogue, kGeluBackward)) x *= gelu_slope(get(desc.aux, c.type, at_aux));
    put(d_data, c.type, at, x);
    return x;
  }
};

// ---- the library's functions

// Objects behind handles, and calls that fail where a test wants it.
template <class T, class Handle>
cublasStatus_t make(Handle* handle, const T& value) {
  if (stand_in::fails()) return CUBLAS_STATUS_INTERNAL_ERROR;
  *handle = reinterpret_cast<Handle>(new T(value));
  stand_in::hold_products(1);
  return CUBLAS_STATUS_SUCCESS;
}
template <class T, class Handle>
cublasStatus_t unmake(Handle handle) {
  delete reinterpret_cast<T*>(handle);
  stand_in::hold_products(-1);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t create(cublasLtHandle_t* handle) { return make(handle, char{}); }
const char* status_string(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "not supported";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "invalid value";
    default:
      return "failed";
  }
}

cublasStatus_t desc_create(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute, cudaDataType_t scale) {
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  return make(desc, Desc{});
}

template <class T>
cublasStatus_t read(T& to, const void* from, size_t bytes) {
  if (stand_in::fails()) return CUBLAS_STATUS_INTERNAL_ERROR;
  if (bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, from, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t desc_set(cublasLtMatmulDesc_t handle, cublasLtMatmulDescAttributes_t which, const void* value,
                        size_t bytes) {
  Desc& desc = *reinterpret_cast<Desc*>(handle);
  switch (which) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return read(desc.transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return read(desc.transpose_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return read(desc.epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return read(desc.bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return read(desc.bias_type, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
      return read(desc.aux, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
      return read(desc.aux_rows, value, bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t layout_create(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows, uint64_t columns,
                             int64_t stride) {
  if (stride < static_cast<int64_t>(rows)) return CUBLAS_STATUS_INVALID_VALUE;
  return make(layout, Layout{type, rows, columns, stride});
}

cublasStatus_t layout_set(cublasLtMatrixLayout_t handle, cublasLtMatrixLayoutAttribute_t which, const void* value,
                          size_t bytes) {
  Layout& layout = *reinterpret_cast<Layout*>(handle);
  if (which == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT) return read(layout.batch, value, bytes);
  if (which == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET) return read(layout.offset, value, bytes);
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t preference_create(cublasLtMatmulPreference_t* preference) { return make(preference, Preference{}); }
cublasStatus_t preference_set(cublasLtMatmulPreference_t handle, cublasLtMatmulPreferenceAttributes_t which,
                              const void* value, size_t bytes) {
  Preference& preference = *reinterpret_cast<Preference*>(handle);
  uint32_t number = 0;
  if (which == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return read(preference.workspace, value, bytes);
  const cublasStatus_t status = read(number, value, bytes);
  if (which != CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
    preference.alignment = std::min(preference.alignment, number);
  return status;
}

// Whether the manual lets these matrices be multiplied so.
cublasStatus_t fit(const Desc& desc, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
  const bool ta = desc.transpose_a == CUBLAS_OP_T, tb = desc.transpose_b == CUBLAS_OP_T;
  const bool shapes = (ta ? a.columns : a.rows) == c.rows && (ta ? a.rows : a.columns) == (tb ? b.columns : b.rows) &&
                      (tb ? b.rows : b.columns) == c.columns && c == d;
  if (!shapes || a.type != b.type || a.batch != c.batch || b.batch != c.batch) return CUBLAS_STATUS_INVALID_VALUE;
  const bool aux = has(desc.epilogue, kAux);
  if (aux && (desc.aux_rows % 8 != 0 || desc.aux_rows < static_cast<int64_t>(c.rows) || !desc.aux))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (has(desc.epilogue, kBias | kBiasGradient) && !desc.bias) return CUBLAS_STATUS_INVALID_VALUE;
  return CUBLAS_STATUS_SUCCESS;
}

cublasLtMatmulHeuristicResult_t result_of(Algorithm algorithm) {
  cublasLtMatmulHeuristicResult_t result{};
  result.algo.data[0] = static_cast<uint64_t>(algorithm);
  result.state = CUBLAS_STATUS_SUCCESS;
  return result;
}

cublasStatus_t heuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                         cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                         cublasLtMatmulPreference_t preference, int most, cublasLtMatmulHeuristicResult_t* results,
                         int* count) {
  *count = 0;
  if (stand_in::fails()) return CUBLAS_STATUS_INTERNAL_ERROR;
  const cublasStatus_t status = fit(of<Desc>(desc), of<Layout>(a), of<Layout>(b), of<Layout>(c), of<Layout>(d));
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  for (const Algorithm algorithm : {Algorithm::favourite, Algorithm::vectors, Algorithm::backwards}) {
    const bool aligned = of<Preference>(preference).alignment >= kVectorAlignment;
    if (*count < most && (aligned || algorithm != Algorithm::vectors)) results[(*count)++] = result_of(algorithm);
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t algo_check(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                          cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                          const cublasLtMatmulAlgo_t* algorithm, cublasLtMatmulHeuristicResult_t* result) {
  *result = result_of(static_cast<Algorithm>(algorithm->data[0]));
  return fit(of<Desc>(desc), of<Layout>(a), of<Layout>(b), of<Layout>(c), of<Layout>(d));
}

cublasStatus_t matmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha, const void* a_data,
                      cublasLtMatrixLayout_t a, const void* b_data, cublasLtMatrixLayout_t b, const void* beta,
                      const void* c_data, cublasLtMatrixLayout_t c, void* d_data, cublasLtMatrixLayout_t d,
                      const cublasLtMatmulAlgo_t* algorithm, void*, size_t, cudaStream_t stream) {
  const Product product{of<Desc>(desc),
                        of<Layout>(a),
                        of<Layout>(b),
                        of<Layout>(c),
                        a_data,
                        b_data,
                        c_data,
                        d_data,
                        *static_cast<const float*>(alpha),
                        *static_cast<const float*>(beta),
                        static_cast<Algorithm>(algorithm->data[0])};
  const cublasStatus_t status = fit(product.desc, product.a, product.b, product.c, of<Layout>(d));
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const auto aligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % kVectorAlignment == 0; };
  for (const void* pointer : {a_data, b_data, c_data, static_cast<const void*>(d_data)})
    if (product.algorithm == Algorithm::vectors && !aligned(pointer)) return CUBLAS_STATUS_NOT_SUPPORTED;
  return stand_in::enqueue(stream,
                           [product](auto&) {
                             for (int32_t i = 0; i < product.c.batch; ++i) product.of(i).run();
                           })
             ? CUBLAS_STATUS_SUCCESS
             : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // namespace

CublasLt::CublasLt()
    : create(cuda::create),
      destroy(unmake<char, cublasLtHandle_t>),
      status_string(cuda::status_string),
      matmul(cuda::matmul),
      desc_create(cuda::desc_create),
      desc_destroy(unmake<Desc, cublasLtMatmulDesc_t>),
      desc_set(cuda::desc_set),
      layout_create(cuda::layout_create),
      layout_destroy(unmake<Layout, cublasLtMatrixLayout_t>),
      layout_set(cuda::layout_set),
      preference_create(cuda::preference_create),
      preference_destroy(unmake<Preference, cublasLtMatmulPreference_t>),
      preference_set(cuda::preference_set),
      heuristic(cuda::heuristic),
      algo_check(cuda::algo_check) {}

}  // namespace nanovlm::cuda
