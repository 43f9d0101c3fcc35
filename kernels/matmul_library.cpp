#include "kernels/matmul_library.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <unordered_map>
#include <vector>

#include <cblas.h>
#include <oneapi/dnnl/dnnl.hpp>

#include "kernels/parallel.h"

namespace nanovlm::kernels {
namespace {

constexpr int64_t kElementsPerTask = 1 << 14;

// Sets every row of c to the bias, for a product that then adds to c.
void fill_with_bias(const Matmul& a) {
  parallel_for(a.M, ceil_div(kElementsPerTask, a.N), [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) std::memcpy(static_cast<float*>(a.c) + m * a.N, a.bias, a.N * sizeof(float));
  });
}

void add_bias(const Matmul& a) {
  parallel_for(a.M, ceil_div(kElementsPerTask, a.N), [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m)
      for (int64_t n = 0; n < a.N; ++n) static_cast<float*>(a.c)[m * a.N + n] += static_cast<const float*>(a.bias)[n];
  });
}

// c[M, N] = op(a) op(b) (+ c), with the rows of a, b and c as far apart as given.
void sgemm(const Matmul& a, int64_t a_step, int64_t b_step, int64_t c_step, bool add) {
  cblas_sgemm(CblasRowMajor, a.transpose_a ? CblasTrans : CblasNoTrans, a.transpose_b ? CblasTrans : CblasNoTrans, a.M,
              a.N, a.K, 1.0f, static_cast<const float*>(a.a), a_step, static_cast<const float*>(a.b), b_step,
              add ? 1.0f : 0.0f, static_cast<float*>(a.c), c_step);
}

void multiply_f32(const Matmul& a) {
  if (a.bias && a.accumulate) add_bias(a);
  if (a.bias && !a.accumulate) fill_with_bias(a);
  sgemm(a, a.transpose_a ? a.M : a.K, a.transpose_b ? a.K : a.N, a.N, a.bias || a.accumulate);
}

// A block of a bf16 matrix as f32, its rows following each other.
void convert(const void* from, int64_t step, int64_t row, int64_t column, int64_t rows, int64_t columns, float* to) {
  parallel_for(rows, ceil_div(kElementsPerTask, columns), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const bf16* x = static_cast<const bf16*>(from) + (row + r) * step + column;
      for (int64_t i = 0; i < columns; ++i) to[r * columns + i] = static_cast<float>(x[i]);
    }
  });
}

float bias_at(const Matmul& a, int64_t n) {
  if (!a.bias) return 0;
  return a.out == DType::bf16 ? static_cast<float>(static_cast<const bf16*>(a.bias)[n])
                              : static_cast<const float*>(a.bias)[n];
}

// Finishes the block of c that starts at (row, column): adds what is to be added, rounds and stores.
void store(const Matmul& a, const float* sum, int64_t row, int64_t column, int64_t rows, int64_t columns) {
  parallel_for(rows, ceil_div(kElementsPerTask, columns), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t i = 0; i < columns; ++i) {
        const int64_t at = (row + r) * a.N + column + i;
        const float value = sum[r * columns + i] + bias_at(a, column + i);
        if (a.out == DType::bf16) static_cast<bf16*>(a.c)[at] = bf16(value);
        if (a.out == DType::f32)
          static_cast<float*>(a.c)[at] = a.accumulate ? static_cast<float*>(a.c)[at] + value : value;
      }
  });
}

// A bf16 product in f32, by blocks: large enough that converting costs little beside multiplying, small enough that the
// converted blocks (24 MiB) do not add to a training step's memory.
void multiply_converted(const Matmul& whole) {
  constexpr int64_t kSide = 1024, kDepth = 2048;
  const auto part = [](int64_t at, int64_t step, int64_t all) { return std::min(step, all - at); };
  const int64_t M = std::min(kSide, whole.M), N = std::min(kSide, whole.N), K = std::min(kDepth, whole.K);
  std::vector<float> a(M * K), b(K * N), c(M * N);
  Matmul block = whole;
  block.a = a.data(), block.b = b.data(), block.c = c.data();
  for (int64_t m = 0; m < whole.M; m += kSide)
    for (int64_t n = 0; n < whole.N; n += kSide) {
      block.M = part(m, kSide, whole.M), block.N = part(n, kSide, whole.N);
      for (int64_t k = 0; k < whole.K; k += kDepth) {
        block.K = part(k, kDepth, whole.K);
        if (whole.transpose_a) {
          convert(whole.a, whole.M, k, m, block.K, block.M, a.data());
        } else {
          convert(whole.a, whole.K, m, k, block.M, block.K, a.data());
        }
        if (whole.transpose_b) {
          convert(whole.b, whole.K, n, k, block.N, block.K, b.data());
        } else {
          convert(whole.b, whole.N, k, n, block.K, block.N, b.data());
        }
        sgemm(block, whole.transpose_a ? block.M : block.K, whole.transpose_b ? block.K : block.N, block.N, k > 0);
      }
      store(whole, c.data(), m, n, block.M, block.N);
    }
}

bool has_bf16_instructions() {
#if defined(NANOVLM_X86)
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

// oneDNN's engine and the products prepared for it. Preparing one generates code, so each is kept by its shape.
class PreparedProducts {
 public:
  void run(const Matmul& a) {
    const std::shared_ptr<Product> product = find(a);
    dnnl::stream stream(engine_);
    std::unordered_map<int, dnnl::memory> arguments{
        {DNNL_ARG_SRC, dnnl::memory(product->a, engine_, const_cast<void*>(a.a))},
        {DNNL_ARG_WEIGHTS, dnnl::memory(product->b, engine_, const_cast<void*>(a.b))},
        {DNNL_ARG_DST, dnnl::memory(product->c, engine_, a.c)}};
    if (a.bias) arguments.emplace(DNNL_ARG_BIAS, dnnl::memory(product->bias, engine_, const_cast<void*>(a.bias)));
    product->primitive.execute(stream, arguments);
    stream.wait();
  }

 private:
  // Training meets a few dozen shapes an epoch and a new one where the number of packed rows changes.
  static constexpr size_t kKept = 512;

  struct Product {
    dnnl::memory::desc a, b, c, bias;
    dnnl::primitive primitive;
  };
  // Shape, form, and the number of threads the product is divided among.
  using Key = std::tuple<int64_t, int64_t, int64_t, bool, bool, bool, bool, DType, int>;

  std::shared_ptr<Product> find(const Matmul& a) {
    const Key key{
        a.M, a.N, a.K, a.transpose_a, a.transpose_b, a.accumulate, a.bias != nullptr, a.out, omp_get_max_threads()};
    const std::lock_guard lock(mutex_);
    if (const auto found = products_.find(key); found != products_.end()) return found->second;
    if (products_.size() == kKept) products_.clear();
    return products_[key] = prepare(a);
  }

  std::shared_ptr<Product> prepare(const Matmul& a) const {
    using dnnl::memory;
    const auto matrix = [](int64_t rows, int64_t columns, bool transposed, DType dtype) {
      const memory::dims strides = transposed ? memory::dims{1, rows} : memory::dims{columns, 1};
      return memory::desc({rows, columns}, dtype == DType::f32 ? memory::data_type::f32 : memory::data_type::bf16,
                          strides);
    };
    Product product;
    product.a = matrix(a.M, a.K, a.transpose_a, a.in);
    product.b = matrix(a.K, a.N, a.transpose_b, a.in);
    product.c = matrix(a.M, a.N, false, a.out);
    product.bias = a.bias ? matrix(1, a.N, false, a.out) : memory::desc();
    dnnl::primitive_attr attributes;
    if (a.accumulate) {
      dnnl::post_ops after;
      after.append_sum(1.0f);
      attributes.set_post_ops(after);
    }
    product.primitive = dnnl::matmul(described(product, attributes));
    return std::make_shared<Product>(std::move(product));
  }

  // Debian 12 has oneDNN 2, Debian 13 and Ubuntu 24.04 have oneDNN 3, which takes the arguments without a descriptor
  // round them. A bias that is none is an empty one.
  dnnl::matmul::primitive_desc described(const Product& p, const dnnl::primitive_attr& attributes) const {
#if DNNL_VERSION_MAJOR >= 3
    return {engine_, p.a, p.b, p.bias, p.c, attributes};
#else
    return {dnnl::matmul::desc(p.a, p.b, p.bias, p.c), attributes, engine_};
#endif
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  std::mutex mutex_;
  std::map<Key, std::shared_ptr<Product>> products_;
};

}  // namespace

void library_matmul(const Matmul& a, bool bf16_instructions) {
  // oneDNN 2.6 on a processor with AMX ends many products over this many terms, and none over another number, with an
  // illegal instruction: tiles that do not fit each other.
  constexpr int64_t kIllegalTerms = 63;
  if (a.in == DType::f32) return multiply_f32(a);
  if (!bf16_instructions || !has_bf16_instructions() || a.K == kIllegalTerms) return multiply_converted(a);
  static PreparedProducts products;
  products.run(a);
}

}  // namespace nanovlm::kernels
