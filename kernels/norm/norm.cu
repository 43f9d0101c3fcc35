// RMSNorm and LayerNorm on a GPU: bound by memory. RMSNorm is LayerNorm without mean and bias.
//
// Forward and dx: a warp owns a row. Rows of up to 768 columns in whole quads, which both models have, are held in
// registers where they are aligned, so that each byte moves once; others are read again for each pass. The gradient of
// RMSNorm holds rows as pairs: nine a lane are the decoder's 576 columns, where quads would be four and a half and
// leave lanes idle. dw and db: for held rows the same kernel's warps walk over rows, a grid apart, and add them up in
// registers; a block's sums are a line of scratch memory, and a second kernel adds the lines. Else one thread a column
// walks the rows. The order of every sum is fixed by R, C and alignment alone. The gradient asks for all of a row, x,
// dy and dsum, before it waits for any of it: up to 90 kB a multiprocessor are under way, where the memory's rate times
// its latency is some 30.
#include "kernels/norm/norm.h"

#include "kernels/elements.cuh"

namespace nanovlm::kernels {
namespace {

constexpr int kWarps = 8, kBackwardWarps = 4;  // a block
// Blocks of the gradient take at least so many rows each, lest their lines of scratch memory weigh; and are no more
// than the multiprocessors of an H100 hold at once, so that all end together.
constexpr int64_t kLeastRows = 32, kMultiprocessors = 132;

// How the lanes of a warp hold a row: each has so many groups of neighbours, a warp's width apart. The gradient of
// LayerNorm takes quads, that of RMSNorm pairs; kBlocks: as many as the registers of a multiprocessor then allow.
struct Quads {
  static constexpr int kWidth = 4, kSteps = 6, kColumns = kWidth * kSteps * kWarp, kBlocks = 3;
  static constexpr bool kCentered = true;
};
template <int kPairs>
struct Pairs {
  static constexpr int kWidth = 2, kSteps = kPairs, kColumns = kWidth * kSteps * kWarp, kBlocks = kPairs <= 9 ? 4 : 3;
  static constexpr bool kCentered = false;
};
struct Reread {
  static constexpr int kWidth = 1, kSteps = 1;
};

// Whether these rows can be held so.
template <class Held>
bool holds_rows(const LayerNorm& a) {
  return a.C % Held::kWidth == 0 && a.C <= Held::kColumns && aligned(a.x, a.delta, a.w, a.b, a.sum, a.y);
}
template <class Held>
bool holds_rows(const LayerNormBackward& a) {
  return a.C % Held::kWidth == 0 && a.C <= Held::kColumns && aligned(a.x, a.delta, a.dy, a.dsum, a.dx, a.ddelta);
}

// Calls f(step, c) for the columns c ... c + kWidth - 1 that this lane owns.
template <class Held, class F>
__device__ void for_lane_columns(int64_t C, const F& f) {
  const int64_t lane = thread_in_block() % kWarp;
  if constexpr (Held::kSteps > 1) {
#pragma unroll
    for (int step = 0; step < Held::kSteps; ++step)
      if (const int64_t c = (lane + step * kWarp) * Held::kWidth; c < C) f(step, c);
  } else {
    for (int64_t c = lane; c < C; c += kWarp) f(0, c);
  }
}

// Where not kCentered, a.b and a.m are null and the mean is taken as 0.
template <class T, bool kCentered, class Held>
__global__ void norm_kernel(const LayerNorm a) {
  constexpr int kWidth = Held::kWidth;
  const int64_t row = int64_t(blockIdx.x) * kWarps + thread_in_block() / kWarp, offset = row * a.C;
  if (row >= a.R) return;  // the whole warp leaves

  Vec<float, kWidth> held[Held::kSteps];
  float m = 0;
  const auto load = [&](int64_t c) {
    Vec<float, kWidth> x = load_floats<kWidth>(a.x + offset + c);
    if (a.delta) {
      const Vec<float, kWidth> delta = load_floats<kWidth>(static_cast<const T*>(a.delta) + offset + c);
      for (int i = 0; i < kWidth; ++i) x[i] += delta[i];
    }
    return x;
  };
  for_lane_columns<Held>(a.C, [&](int step, int64_t c) {
    const Vec<float, kWidth> x = load(c);
    held[step] = x;
    for (int i = 0; i < kWidth; ++i) m += x[i];
  });
  m = kCentered ? warp_sum(m) / static_cast<float>(a.C) : 0;

  const auto read = [&](int step, int64_t c) {
    if constexpr (Held::kSteps > 1)
      return held[step];
    else
      return load(c);
  };
  float squares = 0;
  for_lane_columns<Held>(a.C, [&](int step, int64_t c) {
    const Vec<float, kWidth> x = read(step, c);
    for (int i = 0; i < kWidth; ++i) squares += (x[i] - m) * (x[i] - m);
  });
  const float r = rsqrtf(warp_sum(squares) / static_cast<float>(a.C) + a.eps);

  for_lane_columns<Held>(a.C, [&](int step, int64_t c) {
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

// N neighbours as they lie in memory, by one access of 4, 8 or 16 bytes.
template <int N, class T>
__device__ Vec<T, N> load(const T* from) {
  if constexpr (N * sizeof(T) == 16)
    return ld16(from);
  else if constexpr (N * sizeof(T) == 8)
    return ld8(from);
  else
    return std::bit_cast<Vec<T, N>>(*reinterpret_cast<const uint32_t*>(from));
}
template <int N, class T>
__device__ void store(T* to, const Vec<float, N>& value) {
  if constexpr (N * sizeof(T) >= 8)
    store_floats<N>(to, value);
  else
    *reinterpret_cast<uint32_t*>(to) = pack_bf16(value[0], value[1]);
}

// What a lane holds of a row, as it lies in memory; 0 beyond the row's end, and where there is no delta or dsum.
template <class T, class Held>
struct HeldRow {
  static constexpr int kWidth = Held::kWidth;
  Vec<float, kWidth> x[Held::kSteps] = {}, dsum[Held::kSteps] = {};
  Vec<T, kWidth> dy[Held::kSteps] = {}, delta[Held::kSteps] = {};
  float m = 0, r;

  // Nothing but loads, each with a predicate and no branch: all are under way before the first one is waited for.
  __device__ HeldRow(const LayerNormBackward& a, int64_t row) : r(a.r[row]) {
    const int64_t offset = row * a.C;
    if constexpr (Held::kCentered) m = a.m[row];
    for_lane_columns<Held>(a.C, [&](int step, int64_t c) {
      x[step] = load<kWidth>(a.x + offset + c);
      dy[step] = load<kWidth>(static_cast<const T*>(a.dy) + offset + c);
    });
    for_lane_columns<Held>(a.delta ? a.C : 0, [&](int step, int64_t c) {
      delta[step] = load<kWidth>(static_cast<const T*>(a.delta) + offset + c);
    });
    for_lane_columns<Held>(a.dsum ? a.C : 0,
                           [&](int step, int64_t c) { dsum[step] = load<kWidth>(a.dsum + offset + c); });
  }
};

// Adds a warp's part of a line to that of the warps before it; the last one stores the sum.
template <int N>
__device__ void add_line(float* shared, float* global, int turn, Vec<float, N> part) {
  if (turn > 0) {
    const Vec<float, N> before = load<N>(shared);
    for (int i = 0; i < N; ++i) part[i] += before[i];
  }
  store(turn < kBackwardWarps - 1 ? shared : global, part);
}

// dx of held rows, and the block's part of dw and db: a line of `parts` [blocks, 2, C], or none where parts is null.
template <class T, class Held>
__global__ void __launch_bounds__(kBackwardWarps* kWarp, Held::kBlocks)
    norm_backward_kernel(const LayerNormBackward a, float* parts) {
  constexpr int kWidth = Held::kWidth;
  const int thread = thread_in_block(), warp = thread / kWarp, lane = thread % kWarp;
  GPU_SHARED(float, w, [Held::kColumns]);
  for (int c = thread; c < Held::kColumns; c += kBackwardWarps * kWarp) w[c] = c < a.C ? a.w[c] : 0;
  __syncthreads();
  Vec<float, kWidth> dw[Held::kSteps] = {}, db[Held::kSteps] = {};

  const int64_t stride = int64_t(gridDim.x) * kBackwardWarps;
  for (int64_t row = int64_t(blockIdx.x) * kBackwardWarps + warp; row < a.R; row += stride) {
    const HeldRow<T, Held> held(a, row);
    Vec<float, kWidth> n[Held::kSteps];
    float sum_g = 0, sum_gn = 0;
#pragma unroll
    for (int step = 0; step < Held::kSteps; ++step) {
      const Vec<float, kWidth> scale = load<kWidth>(&w[(step * kWarp + lane) * kWidth]);
      for (int i = 0; i < kWidth; ++i) {
        const float dy = static_cast<float>(held.dy[step][i]), g = dy * scale[i];
        n[step][i] = (held.x[step][i] + static_cast<float>(held.delta[step][i]) - held.m) * held.r;
        sum_g += g, sum_gn += g * n[step][i];
        dw[step][i] += dy * n[step][i];
        if constexpr (Held::kCentered) db[step][i] += dy;
      }
    }
    const float mean_g = Held::kCentered ? warp_sum(sum_g) / static_cast<float>(a.C) : 0;
    const float mean_gn = warp_sum(sum_gn) / static_cast<float>(a.C);

    for_lane_columns<Held>(a.C, [&](int step, int64_t c) {
      const Vec<float, kWidth> scale = load<kWidth>(&w[c]);
      Vec<float, kWidth> dx = held.dsum[step];
      for (int i = 0; i < kWidth; ++i)
        dx[i] += held.r * (static_cast<float>(held.dy[step][i]) * scale[i] - mean_g - n[step][i] * mean_gn);
      store(a.dx + row * a.C + c, dx);
      if (a.ddelta) store(static_cast<T*>(a.ddelta) + row * a.C + c, dx);
    });
  }

  if (!parts) return;
  GPU_SHARED(float, lines, [2][Held::kColumns]);
  float* line = parts + int64_t(blockIdx.x) * 2 * a.C;
  for (int turn = 0; turn < kBackwardWarps; ++turn) {  // warps add in turn: a fixed order
    if (turn == warp)
      for_lane_columns<Held>(a.C, [&](int step, int64_t c) {
        add_line(&lines[0][c], line + c, turn, dw[step]);
        if constexpr (Held::kCentered) add_line(&lines[1][c], line + a.C + c, turn, db[step]);
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
  for_lane_columns<Reread>(a.C, [&](int, int64_t c) { sum_g += g(c), sum_gn += g(c) * n(c); });
  const float mean_g = kCentered ? warp_sum(sum_g) / static_cast<float>(a.C) : 0;
  const float mean_gn = warp_sum(sum_gn) / static_cast<float>(a.C);
  for_lane_columns<Reread>(a.C, [&](int, int64_t c) {
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

template <bool kCentered>
void forward(const char* name, const LayerNorm& a, Stream stream) {
  if (a.R == 0) return;
  const LaunchShape shape{ceil_div(a.R, kWarps), kWarps * kWarp, 0, stream};
  with_float(a.dtype, [&]<class T>(Type<T>) {
    launch(name, holds_rows<Quads>(a) ? norm_kernel<T, kCentered, Quads> : norm_kernel<T, kCentered, Reread>, shape, a);
  });
}

template <class T, class Held>
void backward_of_held(const char* name, const LayerNormBackward& a, Stream stream) {
  const int64_t blocks = min(ceil_div(a.R, kLeastRows), kMultiprocessors * Held::kBlocks);
  const LaunchShape shape{blocks, kBackwardWarps * kWarp, 0, stream};
  float* const none = nullptr;
  if (!a.dw) return launch(name, norm_backward_kernel<T, Held>, shape, a, none);
  Scratch parts(name, stream, blocks * 2 * a.C * int64_t{sizeof(float)});
  launch(name, norm_backward_kernel<T, Held>, shape, a, parts.floats());
  launch("norm_add_parts", add_parts_kernel,
         {{ceil_div(a.C, kWarp), Held::kCentered ? 2 : 1}, {kWarp, kWarp}, 0, stream}, parts.floats(), a.dw, a.db,
         blocks, a.C);
}

template <bool kCentered>
void backward(const char* name, const LayerNormBackward& a, Stream stream) {
  if (a.R == 0) return;
  with_float(a.dtype, [&]<class T>(Type<T>) {
    if constexpr (kCentered) {
      if (holds_rows<Quads>(a)) return backward_of_held<T, Quads>(name, a, stream);
    } else {
      if (holds_rows<Pairs<9>>(a)) return backward_of_held<T, Pairs<9>>(name, a, stream);
      if (holds_rows<Pairs<12>>(a)) return backward_of_held<T, Pairs<12>>(name, a, stream);
    }
    launch(name, norm_backward_rereading_kernel<T, kCentered>,
           {ceil_div(a.R, kBackwardWarps), kBackwardWarps * kWarp, 0, stream}, a);
    if (a.dw) launch("norm_parameters", norm_parameters_kernel<T, kCentered>, {ceil_div(a.C, 64), 64, 0, stream}, a);
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
