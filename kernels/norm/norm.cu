// RMSNorm and LayerNorm on a GPU: bound by memory. RMSNorm is LayerNorm without mean and bias.
//
// Forward and dx: a warp owns a row. Rows of up to 768 columns in whole quads, which both models have, are held in
// registers, so that each byte moves once; others are read again for each pass.
// dw and db: for held rows the same kernel's warps walk over rows, a grid apart, and add them up in registers; a
// block's sums are a line of scratch memory, and a second kernel adds the lines. Else one thread a column walks the
// rows. The order of every sum is fixed by R and C alone. The gradient asks for all of a row, x, dy and dsum, before it
// waits for any of it: up to 7.5 kB a warp are under way, 90 kB a multiprocessor, where the memory's rate times its
// latency is some 30.
#include "kernels/norm/norm.h"

#include "kernels/device.cuh"

namespace nanovlm::kernels {
namespace {

constexpr int kWarps = 8;                               // a block
constexpr int kBackwardWarps = 4, kBackwardBlocks = 3;  // a block, and blocks a multiprocessor: registers allow three
// Blocks of the gradient take at least so many rows each, lest their lines of scratch memory weigh; and are no more
// than the 132 multiprocessors of an H100 hold at once, so that all end together.
constexpr int64_t kLeastRows = 32, kMostBlocks = 132 * kBackwardBlocks;
constexpr int kHeldSteps = 6;  // a lane holds this many quads of a row
constexpr int kHeldColumns = kHeldSteps * kWarp * 4;

// Calls f(step, c) for the columns c ... c + width - 1 that this lane owns: width is 4 for held rows, else 1.
template <bool kHeld, class F>
__device__ void for_lane_columns(int64_t C, const F& f) {
  const int64_t lane = thread_in_block() % kWarp;
  if constexpr (kHeld) {
#pragma unroll
    for (int step = 0; step < kHeldSteps; ++step)
      if (const int64_t c = lane * 4 + step * kWarp * 4; c < C) f(step, c);
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
  const auto load = [&](int64_t c) {
    Vec<float, kWidth> x = load_floats<kWidth>(a.x + offset + c);
    if (a.delta) {
      const Vec<float, kWidth> delta = load_floats<kWidth>(static_cast<const T*>(a.delta) + offset + c);
      for (int i = 0; i < kWidth; ++i) x[i] += delta[i];
    }
    return x;
  };
  for_lane_columns<kHeld>(a.C, [&](int step, int64_t c) {
    const Vec<float, kWidth> x = load(c);
    held[step] = x;
    for (int i = 0; i < kWidth; ++i) m += x[i];
  });
  m = kCentered ? warp_sum(m) / static_cast<float>(a.C) : 0;

  const auto read = [&](int step, int64_t c) {
    if constexpr (kHeld)
      return held[step];
    else
      return load(c);
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
    if (a.delta && a.sum) store_floats<kWidth>(a.sum + offset + c, x);  // last: it may be x
  });
  if (thread_in_block() % kWarp == 0) {
    a.r[row] = r;
    if (kCentered) a.m[row] = m;
  }
}

// What a lane holds of a row, as it lies in memory; 0 beyond the row's end, and where there is no delta or dsum.
template <class T>
struct HeldRow {
  Vec<float, 4> x[kHeldSteps] = {}, dsum[kHeldSteps] = {};
  Vec<T, 4> dy[kHeldSteps] = {}, delta[kHeldSteps] = {};
  float m = 0, r;

  // Nothing but loads, each with a predicate and no branch: all are under way before the first one is waited for.
  __device__ HeldRow(const LayerNormBackward& a, int64_t row) : r(a.r[row]) {
    if (a.m) m = a.m[row];
    for_lane_columns<true>(a.C, [&](int step, int64_t c) {
      x[step] = ld16(a.x + row * a.C + c);
      load(dy[step], static_cast<const T*>(a.dy) + row * a.C + c);
    });
    for_lane_columns<true>(a.delta ? a.C : 0, [&](int step, int64_t c) {
      load(delta[step], static_cast<const T*>(a.delta) + row * a.C + c);
    });
    for_lane_columns<true>(a.dsum ? a.C : 0, [&](int step, int64_t c) { dsum[step] = ld16(a.dsum + row * a.C + c); });
  }

 private:
  static __device__ void load(Vec<T, 4>& to, const T* from) {
    if constexpr (sizeof(T) == 2)
      to = ld8(from);
    else
      to = ld16(from);
  }
};

// Adds a warp's part of a line to that of the warps before it; the last one stores the sum.
__device__ void add_line(float* shared, float* global, int turn, Vec<float, 4> part) {
  if (turn > 0) {
    const Vec<float, 4> before = ld16(shared);
    for (int i = 0; i < 4; ++i) part[i] += before[i];
  }
  st16(turn < kBackwardWarps - 1 ? shared : global, part);
}

// dx of held rows, and the block's part of dw and db: a line of `parts` [blocks, 2, C], or none where parts is null.
template <class T, bool kCentered>
__global__ void __launch_bounds__(kBackwardWarps* kWarp, kBackwardBlocks)
    norm_backward_kernel(const LayerNormBackward a, float* parts) {
  const int thread = thread_in_block(), warp = thread / kWarp, lane = thread % kWarp;
  GPU_SHARED(float, w, [kHeldColumns]);
  for (int c = thread; c < kHeldColumns; c += kBackwardWarps * kWarp) w[c] = c < a.C ? a.w[c] : 0;
  __syncthreads();
  Vec<float, 4> dw[kHeldSteps] = {}, db[kHeldSteps] = {};

  const int64_t stride = int64_t(gridDim.x) * kBackwardWarps;
  for (int64_t row = int64_t(blockIdx.x) * kBackwardWarps + warp; row < a.R; row += stride) {
    const HeldRow<T> held(a, row);
    Vec<float, 4> n[kHeldSteps];
    float sum_g = 0, sum_gn = 0;
#pragma unroll
    for (int step = 0; step < kHeldSteps; ++step) {
      const Vec<float, 4> scale = ld16(&w[(step * kWarp + lane) * 4]);
      for (int i = 0; i < 4; ++i) {
        const float dy = static_cast<float>(held.dy[step][i]), g = dy * scale[i];
        n[step][i] = (held.x[step][i] + static_cast<float>(held.delta[step][i]) - held.m) * held.r;
        sum_g += g, sum_gn += g * n[step][i];
        dw[step][i] += dy * n[step][i];
        if constexpr (kCentered) db[step][i] += dy;
      }
    }
    const float mean_g = kCentered ? warp_sum(sum_g) / static_cast<float>(a.C) : 0;
    const float mean_gn = warp_sum(sum_gn) / static_cast<float>(a.C);

    for_lane_columns<true>(a.C, [&](int step, int64_t c) {
      const Vec<float, 4> scale = ld16(&w[c]);
      Vec<float, 4> dx = held.dsum[step];
      for (int i = 0; i < 4; ++i)
        dx[i] += held.r * (static_cast<float>(held.dy[step][i]) * scale[i] - mean_g - n[step][i] * mean_gn);
      store_floats<4>(a.dx + row * a.C + c, dx);
      if (a.ddelta) store_floats<4>(static_cast<T*>(a.ddelta) + row * a.C + c, dx);
    });
  }

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

// x' at one place.
template <class T>
__device__ float sum_of(const LayerNormBackward& a, int64_t at) {
  return a.delta ? a.x[at] + static_cast<float>(static_cast<const T*>(a.delta)[at]) : a.x[at];
}

// dx of other rows.
template <class T, bool kCentered>
__global__ void norm_backward_rereading_kernel(const LayerNormBackward a) {
  const int64_t row = int64_t(blockIdx.x) * kBackwardWarps + thread_in_block() / kWarp;
  if (row >= a.R) return;  // the whole warp leaves
  const int64_t offset = row * a.C;
  const float m = kCentered ? a.m[row] : 0, r = a.r[row];
  const auto g = [&](int64_t c) { return static_cast<float>(static_cast<const T*>(a.dy)[offset + c]) * a.w[c]; };
  const auto n = [&](int64_t c) { return (sum_of<T>(a, offset + c) - m) * r; };

  float sum_g = 0, sum_gn = 0;
  for_lane_columns<false>(a.C, [&](int, int64_t c) { sum_g += g(c), sum_gn += g(c) * n(c); });
  const float mean_g = kCentered ? warp_sum(sum_g) / static_cast<float>(a.C) : 0;
  const float mean_gn = warp_sum(sum_gn) / static_cast<float>(a.C);
  for_lane_columns<false>(a.C, [&](int, int64_t c) {
    const float dx = (a.dsum ? a.dsum[offset + c] : 0) + r * (g(c) - mean_g - n(c) * mean_gn);
    a.dx[offset + c] = dx;
    if (a.ddelta) static_cast<T*>(a.ddelta)[offset + c] = round_to<T>(dx);
  });
}

// dw, and in the grid's second row db, grow by the sum over lines of parts [lines, 2, C]. Thread (x, y) adds lines y,
// y + kWarp, ...
__global__ void add_parts_kernel(const float* parts, float* dw, float* db, int64_t lines, int64_t C) {
  GPU_SHARED(float, part, [kWarp][kWarp]);
  const int64_t c = int64_t(blockIdx.x) * kWarp + threadIdx.x;
  float sum = 0;
#pragma unroll 8  // loads on their way together
  for (int64_t line = threadIdx.y; c < C && line < lines; line += kWarp) sum += parts[(line * 2 + blockIdx.y) * C + c];
  part[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= C) return;
  for (int y = 1; y < kWarp; ++y) sum += part[y][threadIdx.x];
  (blockIdx.y == 0 ? dw : db)[c] += sum;
}

// dw and db, a thread a column.
template <class T, bool kCentered>
__global__ void norm_parameters_kernel(const LayerNormBackward a) {
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= a.C) return;
  float dw = 0, db = 0;
  for (int64_t row = 0; row < a.R; ++row) {
    const float dy = static_cast<float>(static_cast<const T*>(a.dy)[row * a.C + c]);
    dw += dy * ((sum_of<T>(a, row * a.C + c) - (kCentered ? a.m[row] : 0)) * a.r[row]);
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
  with_float(a.dtype, [&]<class T>(Type<T>) {
    if (!holds_rows(a.C)) {
      launch(name, norm_backward_rereading_kernel<T, kCentered>,
             {ceil_div(a.R, kBackwardWarps), kBackwardWarps * kWarp, 0, stream}, a);
      if (a.dw) launch("norm_parameters", norm_parameters_kernel<T, kCentered>, {ceil_div(a.C, 64), 64, 0, stream}, a);
      return;
    }
    const int64_t blocks = min(ceil_div(a.R, kLeastRows), kMostBlocks);
    const LaunchShape shape{blocks, kBackwardWarps * kWarp, 0, stream};
    float* const none = nullptr;
    if (!a.dw) return launch(name, norm_backward_kernel<T, kCentered>, shape, a, none);
    Scratch parts(name, stream, blocks * 2 * a.C * int64_t{sizeof(float)});
    launch(name, norm_backward_kernel<T, kCentered>, shape, a, parts.floats());
    launch("norm_add_parts", add_parts_kernel, {{ceil_div(a.C, kWarp), kCentered ? 2 : 1}, {kWarp, kWarp}, 0, stream},
           parts.floats(), a.dw, a.db, blocks, a.C);
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
                  {a.dy, a.x, a.delta, a.w, nullptr, a.r, a.dsum, a.dx, a.ddelta, a.dw, nullptr, a.R, a.C, a.dtype},
                  stream);
}

}  // namespace nanovlm::kernels
