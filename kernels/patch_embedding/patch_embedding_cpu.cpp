// Patch embedding on a CPU: the pixels of each patch are gathered into one row (im2col), and the products are
// kernels/matmul's.
#include "kernels/patch_embedding/patch_embedding.h"

#include "kernels/cpu_math.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/matmul/matmul.h"

namespace nanovlm::kernels {
namespace {

struct Grid {
  int64_t S, p;
  int64_t width() const { return S / p; }
  int64_t patches() const { return width() * width(); }
  int64_t K() const { return 3 * p * p; }
};

// Calls f(pixels, columns) for every run of p neighbouring pixels in rows [begin, end) of patches [B * P, K]: the index
// of its first pixel in images and of its first entry in patches.
template <class F>
void for_each_run(const Grid& grid, int64_t begin, int64_t end, const F& f) {
  const int64_t S = grid.S, p = grid.p;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t b = row / grid.patches(), i = row % grid.patches();
    const int64_t top = i / grid.width() * p, left = i % grid.width() * p;
    for (int64_t channel = 0; channel < 3; ++channel)
      for (int64_t dy = 0; dy < p; ++dy)
        f(((b * 3 + channel) * S + top + dy) * S + left, row * grid.K() + (channel * p + dy) * p);
  }
}

template <class T>
void gather_patches(const float* images, T* patches, int64_t rows, const Grid& grid) {
  const int64_t p = grid.p;
  parallel_rows(rows, grid.K(), [&](int64_t begin, int64_t end) {
    for_each_run(grid, begin, end, [&](int64_t pixels, int64_t columns) {
#pragma omp simd
      for (int64_t dx = 0; dx < p; ++dx) store(patches[columns + dx], images[pixels + dx]);
    });
  });
}

// Patches do not overlap, so the gradient of a gather is a copy; pixels outside the grid get 0.
template <class T>
void scatter_patches(const T* patches, float* images, int64_t rows, const Grid& grid, ThisBackend backend) {
  const int64_t S = grid.S, p = grid.p, covered = grid.width() * p;
  if (covered != S) fill(backend, {images, rows / grid.patches() * 3 * S * S, 0.0f, DType::f32}, {});
  parallel_rows(rows, grid.K(), [&](int64_t begin, int64_t end) {
    for_each_run(grid, begin, end, [&](int64_t pixels, int64_t columns) {
#pragma omp simd
      for (int64_t dx = 0; dx < p; ++dx) images[pixels + dx] = static_cast<float>(patches[columns + dx]);
    });
  });
}

// y[b] += position for every b
void add_position(const float* position, float* y, int64_t B, int64_t size) {
  parallel_rows(B, size, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      float* row = y + b * size;
#pragma omp simd
      for (int64_t i = 0; i < size; ++i) row[i] += position[i];
    }
  });
}

// dposition += dy[0] + dy[1] + ..., in this order
void add_position_gradient(const float* dy, float* dposition, int64_t B, int64_t size) {
  parallel_elements(size, [&](int64_t begin, int64_t end) {
    for (int64_t b = 0; b < B; ++b) {
      const float* row = dy + b * size;
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) dposition[i] += row[i];
    }
  });
}

}  // namespace

template <>
void patch_embedding(ThisBackend backend, const PatchEmbedding& a, Stream stream) {
  const Grid grid{a.S, a.p};
  const int64_t rows = a.B * grid.patches();
  with_float(a.dtype, [&]<class T>(Type<T>) { gather_patches(a.images, as<T>(a.patches), rows, grid); });
  matmul(backend,
         Matmul{.a = a.patches,
                .b = a.weight,
                .c = a.y,
                .bias = a.bias,
                .M = rows,
                .N = a.C,
                .K = grid.K(),
                .transpose_a = false,
                .transpose_b = true,
                .accumulate = false,
                .in = a.dtype,
                .out = DType::f32},
         stream);
  if (a.position) add_position(a.position, a.y, a.B, grid.patches() * a.C);
}

template <>
void patch_embedding_backward(ThisBackend backend, const PatchEmbeddingBackward& a, Stream stream) {
  const Grid grid{a.S, a.p};
  const int64_t rows = a.B * grid.patches();
  const void* dy = a.dy;
  if (a.dtype != DType::f32 && (a.dweight || a.dimages)) {
    cast(backend, {a.dy, a.dy_rounded, rows * a.C, DType::f32, a.dtype}, stream);
    dy = a.dy_rounded;
  }
  if (a.dbias) column_sum(backend, {a.dy, a.dbias, rows, a.C, DType::f32}, stream);
  if (a.dposition) add_position_gradient(a.dy, a.dposition, a.B, grid.patches() * a.C);
  if (a.dweight) {
    with_float(a.dtype, [&]<class T>(Type<T>) { gather_patches(a.images, as<T>(a.patches), rows, grid); });
    matmul(backend,
           Matmul{.a = dy,
                  .b = a.patches,
                  .c = a.dweight,
                  .bias = nullptr,
                  .M = a.C,
                  .N = grid.K(),
                  .K = rows,
                  .transpose_a = true,
                  .transpose_b = false,
                  .accumulate = true,
                  .in = a.dtype,
                  .out = DType::f32},
           stream);
  }
  if (a.dimages) {
    matmul(backend,
           Matmul{.a = dy,
                  .b = a.weight,
                  .c = a.patches,
                  .bias = nullptr,
                  .M = rows,
                  .N = grid.K(),
                  .K = a.C,
                  .transpose_a = false,
                  .transpose_b = false,
                  .accumulate = false,
                  .in = a.dtype,
                  .out = a.dtype},
           stream);
    with_float(a.dtype, [&]<class T>(Type<T>) { scatter_patches(as<T>(a.patches), a.dimages, rows, grid, backend); });
  }
}

}  // namespace nanovlm::kernels
