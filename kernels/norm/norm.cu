// RMSNorm and LayerNorm on a GPU: bound by memory. RMSNorm is LayerNorm without mean and bias.
//
// Forward and dx: a warp owns a row. Rows of up to 768 columns in whole quads, which both models have, are held in
// registers, so that each byte moves once; others are read again for each pass.
// dw and db: for held rows the same kernel adds a chunk's rows to a line of scratch memory, and a second kernel adds
// the lines; else one thread a column walks the rows. The order of every sum is fixed by R and C alone.
#include "kernels/norm/norm.h"

#include "kernels/device.cuh"

namespace nanovlm::kernels {
namespace {

constexpr int kWarps = 8;          // a block
constexpr int kBackwardWarps = 4;  // at 144 registers a lane, three blocks of the gradient fit a multiprocessor
constexpr int kChunkRows = 64;     // rows whose dw one block adds up
constexpr int kHeldSteps = 6;      // a lane holds this many quads of a row
constexpr int kHeldColumns = kHeldSteps * kWarp * 4;

// Calls f(step, c) for the columns c ... c + width - 1 that this lane owns: width is 4 for held rows, else 1.
template <bool kHeld, class F>
__device__ void for_lane_columns(int64_t C, const F& f) {
  const int lane = thread_in_block() % kWarp;
  if constexpr (kHeld) {
#pragma unroll
    for (int step = 0; step < kHeldSteps; ++step)
      if (const int c = (step * kWarp + lane) * 4; c < C) f(step, c);
  } else {
    for (int64_t c = lane; c < C; c += kWarp) f(0, c);
  }
}

// Where not kCentered, a.b and a.m are null and the mean is taken as 0.
template <class T, bool kCentered, bool kHeld>
__global__ void norm_kernel(const LayerNorm a) {
  constexpr int kWidth = kHeld ? 4 : 1;
  const int64_t row = int64_t(blockIdx.x) * kWarps + thread_in_block() / kWarp, offset = row * a.C;
  if (row >= a.R) return;  // the whole warp leaves

  Vec<float, kWidth> held[kHeld ? kHeldSteps : 1];
  float m = 0;
  for_lane_columns<kHeld>(a.C, [&](int step, int64_t c) {
    Vec<float, kWidth> x = load_floats<kWidth>(a.x + offset + c);
    if (a.delta) {
      const Vec<float, kWidth> delta = load_floats<kWidth>(static_cast<const T*>(a.delta) + offset + c);
      for (int i = 0; i < kWidth; ++i) x[i] += delta[i];
      store_floats<kWidth>(a.sum + offset + c, x);
    }
    held[step] = x;
    for (int i = 0; i < kWidth; ++i) m += x[i];
  });
  m = kCentered ? warp_sum(m) / static_cast<float>(a.C) : 0;

  const float* x_sum = a.delta ? a.sum : a.x;
  const auto read = [&](int step, int64_t c) {
    if constexpr (kHeld)
      return held[step];
    else
      return load_floats<kWidth>(x_sum + offset + c);
  };
  float squares = 0;
  for_lane_columns<kHeld>(a.C, [&](int step, int64_t c) {
    const Vec<float, kWidth> x = read(step, c);
    for (int i = 0; i < kWidth; ++i) squares += (x[i] - m) * (x[i] - m);
  });
  const float r = rsqrtf(warp_sum(squares) / static_cast<float>(a.C) + a.eps);

  for_lane_columns<kHeld>(a.C, [&](int step, int64_t c) {
    const Vec<float, kWidth> x = read(step, c), w = load_floats<kWidth>(a.w + c);
    Vec<float, kWidth> y;
    for (int i = 0; i < kWidth; ++i) y[i] = (x[i] - m) * r * w[i];
    if constexpr (kCentered) {
      const Vec<float, kWidth> b = load_floats<kWidth>(a.b + c);
      for (int i = 0; i < kWidth; ++i) y[i] += b[i];
    }
    store_floats<kWidth>(static_cast<T*>(a.y) + offset + c, y);
  });
  if (thread_in_block() % kWarp == 0) {
    a.r[row] = r;
    if (kCentered) a.m[row] = m;
  }
}

// Adds a warp's part of a line to that of the warps before it; the last one stores the sum.
__device__ void add_line(float* shared, float* global, int turn, Vec<float, 4> part) {
  if (turn > 0) {
    const Vec<float, 4> before = ld16(shared);
    for (int i = 0; i < 4; ++i) part[i] += before[i];
  }
  st16(turn < kBackwardWarps - 1 ? shared : global, part);
}

// dx, and for held rows the chunk's part of dw and db: a line of `parts` [chunks, 2, C], or none where parts is null.
template <class T, bool kCentered, bool kHeld>
__global__ void __launch_bounds__(kBackwardWarps* kWarp, 3)
    norm_backward_kernel(const LayerNormBackward a, float* parts) {
  constexpr int kWidth = kHeld ? 4 : 1;
  const int warp = thread_in_block() / kWarp;
  const int64_t first = int64_t(blockIdx.x) * kChunkRows, end = min(first + kChunkRows, a.R);
  Vec<float, kWidth> dw[kHeld ? kHeldSteps : 1] = {}, db[kHeld ? kHeldSteps : 1] = {};

  for (int64_t row = first + warp; row < end; row += kBackwardWarps) {
    const T* dy = static_cast<const T*>(a.dy) + row * a.C;
    const float* x = a.x + row * a.C;
    const float m = kCentered ? a.m[row] : 0, r = a.r[row];

    Vec<float, kWidth> held_g[kHeld ? kHeldSteps : 1], held_n[kHeld ? kHeldSteps : 1];
    const auto read = [&](int64_t c, Vec<float, kWidth>& slope, Vec<float, kWidth>& g, Vec<float, kWidth>& n) {
      slope = load_floats<kWidth>(dy + c), n = load_floats<kWidth>(x + c);
      const Vec<float, kWidth> w = load_floats<kWidth>(a.w + c);
      for (int i = 0; i < kWidth; ++i) g[i] = slope[i] * w[i], n[i] = (n[i] - m) * r;
    };
    float sum_g = 0, sum_gn = 0;
    for_lane_columns<kHeld>(a.C, [&](int step, int64_t c) {
      Vec<float, kWidth> slope;
      read(c, slope, held_g[step], held_n[step]);
      for (int i = 0; i < kWidth; ++i) {
        sum_g += held_g[step][i], sum_gn += held_g[step][i] * held_n[step][i];
        dw[step][i] += slope[i] * held_n[step][i];
        if constexpr (kCentered) db[step][i] += slope[i];
      }
    });
    const float mean_g = kCentered ? warp_sum(sum_g) / static_cast<float>(a.C) : 0;
    const float mean_gn = warp_sum(sum_gn) / static_cast<float>(a.C);

    for_lane_columns<kHeld>(a.C, [&](int step, int64_t c) {
      if constexpr (!kHeld) {
        Vec<float, kWidth> slope;
        read(c, slope, held_g[step], held_n[step]);
      }
      Vec<float, kWidth> dx;
      for (int i = 0; i < kWidth; ++i) dx[i] = r * (held_g[step][i] - mean_g - held_n[step][i] * mean_gn);
      if (a.dsum) {
        const Vec<float, kWidth> dsum = load_floats<kWidth>(a.dsum + row * a.C + c);
        for (int i = 0; i < kWidth; ++i) dx[i] += dsum[i];
      }
      store_floats<kWidth>(a.dx + row * a.C + c, dx);
      if (a.ddelta) store_floats<kWidth>(static_cast<T*>(a.ddelta) + row * a.C + c, dx);
    });
  }

  if constexpr (kHeld) {
    if (!parts) return;
    GPU_SHARED(float, lines, [2][kHeldColumns]);
    float* line = parts + int64_t(blockIdx.x) * 2 * a.C;
    for (int turn = 0; turn < kBackwardWarps; ++turn) {  // warps add in turn: a fixed order
      if (turn == warp)
        for_lane_columns<true>(a.C, [&](int step, int64_t c) {
          add_line(&lines[0][c], line + c, turn, dw[step]);
          if constexpr (kCentered) add_line(&lines[1][c], line + a.C + c, turn, db[step]);
        });
      __syncthreads();
    }
  }
}

// sums[c] += the sum over lines of parts[line][offset + c]. Thread (x, y) adds lines y, y + kWarp, ...
__global__ void add_parts_kernel(const float* parts, float* sums, int64_t lines, int64_t C, int64_t offset) {
  GPU_SHARED(float, part, [kWarp][kWarp]);
  const int64_t c = int64_t(blockIdx.x) * kWarp + threadIdx.x;
  float sum = 0;
  for (int64_t line = threadIdx.y; c < C && line < lines; line += kWarp) sum += parts[line * 2 * C + offset + c];
  part[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= C) return;
  for (int y = 1; y < kWarp; ++y) sum += part[y][threadIdx.x];
  sums[c] += sum;
}

// dw and db, a thread a column.
template <class T, bool kCentered>
__global__ void norm_parameters_kernel(const LayerNormBackward a) {
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= a.C) return;
  float dw = 0, db = 0;
  for (int64_t row = 0; row < a.R; ++row) {
    const float dy = static_cast<float>(static_cast<const T*>(a.dy)[row * a.C + c]);
    dw += dy * ((a.x[row * a.C + c] - (kCentered ? a.m[row] : 0)) * a.r[row]);
    db += dy;
  }
  a.dw[c] += dw;
  if (kCentered) a.db[c] += db;
}

bool holds_rows(int64_t C) { return C % 4 == 0 && C <= kHeldColumns; }

template <bool kCentered>
void forward(const char* name, const LayerNorm& a, Stream stream) {
  const LaunchShape shape{ceil_div(a.R, kWarps), kWarps * kWarp, 0, stream};
  with_float(a.dtype, [&]<class T>(Type<T>) {
    launch(name, holds_rows(a.C) ? norm_kernel<T, kCentered, true> : norm_kernel<T, kCentered, false>, shape, a);
  });
}

template <bool kCentered>
void backward(const char* name, const LayerNormBackward& a, Stream stream) {
  const int64_t chunks = ceil_div(a.R, kChunkRows);
  const LaunchShape shape{chunks, kBackwardWarps * kWarp, 0, stream};
  with_float(a.dtype, [&]<class T>(Type<T>) {
    float* const none = nullptr;
    if (!holds_rows(a.C)) {
      launch(name, norm_backward_kernel<T, kCentered, false>, shape, a, none);
      if (a.dw) launch("norm_parameters", norm_parameters_kernel<T, kCentered>, {ceil_div(a.C, 64), 64, 0, stream}, a);
    } else if (!a.dw) {
      launch(name, norm_backward_kernel<T, kCentered, true>, shape, a, none);
    } else {
      Scratch parts(name, stream, chunks * 2 * a.C * int64_t{sizeof(float)});
      const LaunchShape columns{ceil_div(a.C, kWarp), {kWarp, kWarp}, 0, stream};
      launch(name, norm_backward_kernel<T, kCentered, true>, shape, a, parts.floats());
      launch("norm_add_parts", add_parts_kernel, columns, parts.floats(), a.dw, chunks, a.C, 0);
      if (kCentered) launch("norm_add_parts", add_parts_kernel, columns, parts.floats(), a.db, chunks, a.C, a.C);
    }
  });
}

}  // namespace

template <>
void layer_norm(ThisBackend, const LayerNorm& a, Stream stream) {
  forward<true>("layer_norm", a, stream);
}
template <>
void layer_norm_backward(ThisBackend, const LayerNormBackward& a, Stream stream) {
  backward<true>("layer_norm_backward", a, stream);
}
template <>
void rms_norm(ThisBackend, const RmsNorm& a, Stream stream) {
  forward<false>("rms_norm", {a.x, a.delta, a.w, nullptr, a.sum, a.y, nullptr, a.r, a.R, a.C, a.eps, a.dtype}, stream);
}
template <>
void rms_norm_backward(ThisBackend, const RmsNormBackward& a, Stream stream) {
  backward<false>("rms_norm_backward",
                  {a.dy, a.x, a.w, nullptr, a.r, a.dsum, a.dx, a.ddelta, a.dw, nullptr, a.R, a.C, a.dtype}, stream);
}

}  // namespace nanovlm::kernels
