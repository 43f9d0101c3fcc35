#include "kernels/matmul_library.h"

#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
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
      for (int64_t n = 0; n < a.N; ++n) static_cast<float*>(a.c)[m * a.N + n] += a.bias[n];
  });
}

void multiply_f32(const Matmul& a) {
  if (a.bias && a.accumulate) add_bias(a);
  if (a.bias && !a.accumulate) fill_with_bias(a);
  cblas_sgemm(CblasRowMajor, a.transpose_a ? CblasTrans : CblasNoTrans, a.transpose_b ? CblasTrans : CblasNoTrans, a.M,
              a.N, a.K, 1.0f, static_cast<const float*>(a.a), a.transpose_a ? a.M : a.K, static_cast<const float*>(a.b),
              a.transpose_b ? a.K : a.N, a.bias || a.accumulate ? 1.0f : 0.0f, static_cast<float*>(a.c), a.N);
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
    if (a.bias) arguments.emplace(DNNL_ARG_BIAS, dnnl::memory(product->bias, engine_, const_cast<float*>(a.bias)));
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
  using Key = std::tuple<int64_t, int64_t, int64_t, bool, bool, bool, bool, DType>;

  std::shared_ptr<Product> find(const Matmul& a) {
    const Key key{a.M, a.N, a.K, a.transpose_a, a.transpose_b, a.accumulate, a.bias != nullptr, a.out};
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
    product.bias = a.bias ? matrix(1, a.N, false, DType::f32) : memory::desc();
    dnnl::primitive_attr attributes;
    if (a.accumulate) {
      dnnl::post_ops after;
      after.append_sum(1.0f);
      attributes.set_post_ops(after);
    }
    const dnnl::matmul::desc description = a.bias ? dnnl::matmul::desc(product.a, product.b, product.bias, product.c)
                                                  : dnnl::matmul::desc(product.a, product.b, product.c);
    product.primitive = dnnl::matmul({description, attributes, engine_});
    return std::make_shared<Product>(std::move(product));
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  std::mutex mutex_;
  std::map<Key, std::shared_ptr<Product>> products_;
};

}  // namespace

void library_matmul(const Matmul& a) {
  if (a.in == DType::f32) return multiply_f32(a);
  static PreparedProducts products;
  products.run(a);
}

}  // namespace nanovlm::kernels
