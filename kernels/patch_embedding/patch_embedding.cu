// Patch embedding on a GPU: products that read pixels where they lie (product.cuh), in both directions. Bound by
// arithmetic.
//
//   y = patches weight^T + bias + position,   dweight += dy^T patches,   dimages = dy weight, each at its pixel
#include "kernels/patch_embedding/patch_embedding.h"

#include "kernels/add_lines.cuh"
#include "kernels/elements.cuh"
#include "kernels/matmul/matmul.h"
#include "kernels/patch_embedding/product.cuh"

namespace nanovlm::kernels {
namespace {

// Where patches and their pixels lie in images.
struct Grid {
  int S, p;

  NANOVLM_HOST_DEVICE int width() const { return S / p; }
  NANOVLM_HOST_DEVICE int64_t patches() const { return int64_t(width()) * width(); }
  NANOVLM_HOST_DEVICE int64_t K() const { return int64_t{3} * p * p; }

  __device__ int64_t first_pixel(int64_t row) const {
    const int64_t image = row / patches();
    const int i = static_cast<int>(row % patches());
    return image * 3 * S * S + int64_t(i / width() * p) * S + i % width() * p;
  }
  __device__ int64_t pixel(int64_t k) const {
    const int channel = static_cast<int>(k) / (p * p), in_patch = static_cast<int>(k) % (p * p);
    return (int64_t(channel) * S + in_patch / p) * S + in_patch % p;
  }
};

// Operands of a product. Rows of patches, summed over their pixels:
struct PatchPixels {
  static constexpr bool kAlongK = true;
  const float* data;
  Grid grid;
  __device__ int64_t outer(int64_t row) const { return grid.first_pixel(row); }
  __device__ int64_t inner(int64_t k) const { return grid.pixel(k); }
};
// Pixels of patches, summed over the patches:
struct PixelPatches {
  static constexpr bool kAlongK = false;
  const float* data;
  Grid grid;
  __device__ int64_t outer(int64_t k) const { return grid.pixel(k); }
  __device__ int64_t inner(int64_t row) const { return grid.first_pixel(row); }
};
// Rows of a matrix, and columns of one.
template <class T>
struct Rows {
  static constexpr bool kAlongK = true;
  const T* data;
  int64_t stride;
  __device__ int64_t outer(int64_t row) const { return row * stride; }
  __device__ int64_t inner(int64_t k) const { return k; }
};
template <class T>
struct Columns {
  static constexpr bool kAlongK = false;
  const T* data;
  int64_t stride;
  __device__ int64_t outer(int64_t column) const { return column; }
  __device__ int64_t inner(int64_t k) const { return k * stride; }
};

// What becomes of the products: of one, or of two neighbours where `pairs` says that they may be stored together.
struct Embedding {
  float* y;
  const float *bias, *position;
  int64_t C, P;
  bool pairs;
  template <int W>
  __device__ void store(int64_t row, int64_t c, Vec<float, W> sum) const {
    add(sum, bias + c);
    if (position) add(sum, position + row % P * C + c);
    store_floats<W>(y + row * C + c, sum);
  }
  template <int W>
  static __device__ void add(Vec<float, W>& sum, const float* terms) {
    const Vec<float, W> x = load_floats<W>(terms);
    for (int i = 0; i < W; ++i) sum[i] += x[i];
  }
};
struct AddTo {
  float* sums;
  int64_t stride;
  bool pairs;
  template <int W>
  __device__ void store(int64_t row, int64_t column, const Vec<float, W>& sum) const {
    float* to = sums + row * stride + column;
    Vec<float, W> x = load_floats<W>(to);
    for (int i = 0; i < W; ++i) x[i] += sum[i];
    store_floats<W>(to, x);
  }
};
template <class T>
struct AtPixel {
  float* images;
  Grid grid;
  bool pairs;
  template <int W>
  __device__ void store(int64_t row, int64_t k, Vec<float, W> sum) const {
    for (int i = 0; i < W; ++i) sum[i] = static_cast<float>(round_to<T>(sum[i]));
    store_floats<W>(images + grid.first_pixel(row) + grid.pixel(k), sum);
  }
};

constexpr int kThreads = 256;

// 0 for the pixels that fill no patch.
__global__ void zero_margin_kernel(float* images, int64_t pixels, int S, int covered) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < pixels && (i % S >= covered || i / S % S >= covered)) images[i] = 0;
}

// dy is read once: the bias's gradient is the sum of what the position's grows by.
template <class Backend>
void add_bias_and_position(Backend backend, const PatchEmbeddingBackward& a, int64_t P, Stream stream) {
  if (!a.dbias && !a.dposition) return;
  Scratch sums("patch_embedding_dposition", stream, P * a.C * int64_t{sizeof(float)});
  add_lines("patch_embedding_dposition", a.dy, a.dposition, sums.floats(), a.B, P * a.C, stream);
  if (a.dbias) column_sum(backend, {sums.floats(), a.dbias, P, a.C, DType::f32}, stream);
}

}  // namespace

template <>
void patch_embedding(ThisBackend, const PatchEmbedding& a, Stream stream) {
  const Grid grid{a.S, a.p};
  const int64_t P = grid.patches(), K = grid.K();
  if (a.B * P * a.C == 0) return;
  with_float(a.dtype, [&]<class T>(Type<T>) {
    launch_product<T>("patch_embedding", PatchPixels{a.images, grid}, Rows<T>{static_cast<const T*>(a.weight), K},
                      Embedding{a.y, a.bias, a.position, a.C, P, a.C % 2 == 0 && aligned(a.y, a.bias, a.position)},
                      a.B * P, a.C, K, stream);
  });
}

template <>
void patch_embedding_backward(ThisBackend backend, const PatchEmbeddingBackward& a, Stream stream) {
  const Grid grid{a.S, a.p};
  const int64_t P = grid.patches(), K = grid.K(), rows = a.B * P, pixels = a.B * 3 * a.S * a.S;
  const int covered = grid.width() * a.p;
  if (a.dimages && covered != a.S && pixels > 0)
    launch("patch_embedding_margin", zero_margin_kernel, {ceil_div(pixels, kThreads), kThreads, 0, stream}, a.dimages,
           pixels, a.S, covered);
  if (rows * a.C == 0) return;
  add_bias_and_position(backend, a, P, stream);
  with_float(a.dtype, [&]<class T>(Type<T>) {
    if (a.dweight)
      launch_product<T>("patch_embedding_dweight", Columns<float>{a.dy, a.C}, PixelPatches{a.images, grid},
                        AddTo{a.dweight, K, K % 2 == 0 && aligned(a.dweight)}, a.C, K, rows, stream);
    if (a.dimages)
      launch_product<T>(
          "patch_embedding_dimages", Rows<float>{a.dy, a.C}, Columns<T>{static_cast<const T*>(a.weight), K},
          AtPixel<T>{a.dimages, grid, a.p % 2 == 0 && a.S % 2 == 0 && aligned(a.dimages)}, rows, K, a.C, stream);
  });
}

}  // namespace nanovlm::kernels
