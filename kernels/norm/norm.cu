// RMSNorm and LayerNorm on a GPU: bound by memory. RMSNorm is LayerNorm without mean and bias.
//
// Rows that are aligned, in whole quads, are held in registers, so that each byte moves once. Forward, a warp owns a
// row of up to 2048 columns; a longer one it reads again for each pass. In the gradient a warp holds up to 768 columns
// of LayerNorm and 576 of RMSNorm, which are the models'; these as nine pairs a lane, where quads would be four and a
// half and leave lanes idle. Of more columns a whole block owns a row, two quads a thread, so that threads are as many
// as the row needs and a thread's registers always suffice. Any other row a block reads twice.
//
// dw and db: the threads that hold rows walk over them, a grid apart, and add them up in registers; a block's sums are
// a line of scratch memory, and a second kernel adds the lines. The order of every sum is fixed by R, C and alignment
// alone. The gradient asks for all of a row, x, dy and dsum, before it waits for any of it: some 50 to 90 kB
// a multiprocessor are under way, where the memory's rate times its latency is some 30.
#include "kernels/norm/norm.h"

#include "kernels/elements.cuh"

namespace nanovlm::kernels {
namespace {

constexpr int kWarps = 8, kBackwardWarps = 4;  // a block whose warps own a row each
// Blocks of the gradient take at least so many rows each, lest their lines of scratch memory weigh; and are no more
// than the multiprocessors of an H100 hold at once, so that all end together.
constexpr int64_t kLeastRows = 32, kMultiprocessors = 132;

// How the threads that own a row hold it: each has so many groups of neighbours, as far apart as these threads reach.
// The owner is a warp, or where kBlock a block. In the gradient a block has at most kBlockThreads, and the registers of
// a multiprocessor allow kThreads.
template <int kQuads>
struct Quads {
  static constexpr int kWidth = 4, kSteps = kQuads, kColumns = kWidth * kSteps * kWarp;
  static constexpr int kBlockThreads = kBackwardWarps * kWarp, kThreads = 3 * kBlockThreads;
  static constexpr bool kBlock = false, kCentered = true;
};
struct Pairs {
  static constexpr int kWidth = 2, kSteps = 9, kColumns = kWidth * kSteps * kWarp;
  static constexpr int kBlockThreads = kBackwardWarps * kWarp, kThreads = 4 * kBlockThreads;
  static constexpr bool kBlock = false, kCentered = false;
};
template <bool kIsCentered>
struct Wide {
  static constexpr int kBlockThreads = kIsCentered ? 640 : 768, kThreads = kBlockThreads;
  static constexpr int kWidth = 4, kSteps = 2, kColumns = kWidth * kSteps * kBlockThreads;
  static constexpr bool kBlock = true, kCentered = kIsCentered;
};
struct Reread {
  static constexpr int64_t kBlockThreads = 256, kThreads = 2048;
  static constexpr int kWidth = 1, kSteps = 1;
  static constexpr bool kBlock = false;
};

// Whether these rows can be held so.
template <class Held>
bool holds_rows(const LayerNorm& a) {
  return a.C % Held::kWidth == 0 && a.C <= Held::kColumns && aligned(a.x, a.delta, a.w, a.b, a.sum, a.y);
}
template <class Held>
bool holds_rows(const LayerNormBackward& a) {
  return a.C % Held::kWidth == 0 && a.C <= Held::kColumns && aligned(a.x, a.delta, a.w, a.dy, a.dsum, a.dx, a.ddelta);
}

// The threads that own a row.
template <class Held>
__device__ int owners() {
  return Held::kBlock ? threads_in_block() : kWarp;
}

// Calls f(step, c) for the columns c ... c + kWidth - 1 that this thread owns.
template <class Held, class F>
__device__ void for_own_columns(int64_t C, const F& f) {
  const int64_t threads = owners<Held>(), thread = thread_in_block() % owners<Held>();
  if constexpr (Held::kSteps > 1) {
#pragma unroll
    for (int step = 0; step < Held::kSteps; ++step)
      if (const int64_t c = (thread + step * threads) * Held::kWidth; c < C) f(step, c);
  } else {
    for (int64_t c = thread; c < C; c += threads) f(0, c);
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
  for_own_columns<Held>(a.C, [&](int step, int64_t c) {
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
  for_own_columns<Held>(a.C, [&](int step, int64_t c) {
    const Vec<float, kWidth> x = read(step, c);
    for (int i = 0; i < kWidth; ++i) squares += (x[i] - m) * (x[i] - m);
  });
  const float r = rsqrtf(warp_sum(squares) / static_cast<float>(a.C) + a.eps);

  for_own_columns<Held>(a.C, [&](int step, int64_t c) {
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
    for_own_columns<Held>(a.C, [&](int step, int64_t c) {
      x[step] = load<kWidth>(a.x + offset + c);
      dy[step] = load<kWidth>(static_cast<const T*>(a.dy) + offset + c);
    });
    for_own_columns<Held>(a.delta ? a.C : 0, [&](int step, int64_t c) {
      delta[step] = load<kWidth>(static_cast<const T*>(a.delta) + offset + c);
    });
    for_own_columns<Held>(a.dsum ? a.C : 0,
                          [&](int step, int64_t c) { dsum[step] = load<kWidth>(a.dsum + offset + c); });
  }
};

// w at the columns that a thread owns: in registers where a block owns a row, else shared by the block's warps.
template <class Held>
class Scale {
 public:
  // All threads of the block take part.
  __device__ explicit Scale(const LayerNormBackward& a) {
    if constexpr (Held::kBlock) {
      for_own_columns<Held>(a.C, [&](int step, int64_t c) { own_[step] = load<kWidth>(a.w + c); });
    } else {
      GPU_SHARED(float, w, [Held::kColumns]);
      const int thread = thread_in_block();
      for (int c = thread; c < Held::kColumns; c += Held::kBlockThreads) w[c] = c < a.C ? a.w[c] : 0;
      __syncthreads();
      shared_ = &w[0];
    }
  }
  __device__ Vec<float, Held::kWidth> operator()(int step, int lane) const {
    if constexpr (Held::kBlock)
      return own_[step];
    else
      return load<kWidth>(shared_ + (step * kWarp + lane) * kWidth);
  }

 private:
  static constexpr int kWidth = Held::kWidth;
  Vec<float, kWidth> own_[Held::kSteps] = {};
  const float* shared_ = nullptr;
};

// The sum over the threads that own a row, the same bits on each.
template <class Held>
__device__ float row_sum(float value) {
  return Held::kBlock ? block_sum(value) : warp_sum(value);
}

// Adds a warp's part of a line to that of the warps before it; the last one stores the sum.
template <int N>
__device__ void add_line(float* shared, float* global, int turn, Vec<float, N> part) {
  if (turn > 0) {
    const Vec<float, N> before = load<N>(shared);
    for (int i = 0; i < N; ++i) part[i] += before[i];
  }
  store(turn < kBackwardWarps - 1 ? shared : global, part);
}

// A block's part of dw and db, from what its threads have added up.
template <class Held, class Columns>
__device__ void store_line(float* line, int64_t C, const Columns& dw, const Columns& db) {
  if constexpr (Held::kBlock) {
    for_own_columns<Held>(C, [&](int step, int64_t c) {
      store(line + c, dw[step]);
      if constexpr (Held::kCentered) store(line + C + c, db[step]);
    });
  } else {
    GPU_SHARED(float, lines, [2][Held::kColumns]);
    for (int turn = 0; turn < kBackwardWarps; ++turn) {  // warps add in turn: a fixed order
      if (turn == thread_in_block() / kWarp)
        for_own_columns<Held>(C, [&](int step, int64_t c) {
          add_line(&lines[0][c], line + c, turn, dw[step]);
          if constexpr (Held::kCentered) add_line(&lines[1][c], line + C + c, turn, db[step]);
        });
      __syncthreads();
    }
  }
}

// dx of held rows, and the block's part of dw and db: a line of `parts` [blocks, 2, C], or none where parts is null.
template <class T, class Held>
__global__ void __launch_bounds__(Held::kBlockThreads, Held::kThreads / Held::kBlockThreads)
    norm_backward_kernel(const LayerNormBackward a, float* parts) {
  constexpr int kWidth = Held::kWidth, kOwners = Held::kBlock ? 1 : kBackwardWarps;
  const int owner = thread_in_block() / owners<Held>(), lane = thread_in_block() % owners<Held>();
  const Scale<Held> w(a);
  Vec<float, kWidth> dw[Held::kSteps] = {}, db[Held::kSteps] = {};

  const int64_t stride = int64_t(gridDim.x) * kOwners;
  for (int64_t row = int64_t(blockIdx.x) * kOwners + owner; row < a.R; row += stride) {
    const HeldRow<T, Held> held(a, row);
    Vec<float, kWidth> n[Held::kSteps];
    float sum_g = 0, sum_gn = 0;
#pragma unroll
    for (int step = 0; step < Held::kSteps; ++step) {
      const Vec<float, kWidth> scale = w(step, lane);
      for (int i = 0; i < kWidth; ++i) {
        const float dy = static_cast<float>(held.dy[step][i]), g = dy * scale[i];
        n[step][i] = (held.x[step][i] + static_cast<float>(held.delta[step][i]) - held.m) * held.r;
        sum_g += g, sum_gn += g * n[step][i];
        dw[step][i] += dy * n[step][i];
        if constexpr (Held::kCentered) db[step][i] += dy;
      }
    }
    const float mean_g = Held::kCentered ? row_sum<Held>(sum_g) / static_cast<float>(a.C) : 0;
    const float mean_gn = row_sum<Held>(sum_gn) / static_cast<float>(a.C);

    for_own_columns<Held>(a.C, [&](int step, int64_t c) {
      const Vec<float, kWidth> scale = w(step, lane);
      Vec<float, kWidth> dx = held.dsum[step];
      for (int i = 0; i < kWidth; ++i)
        dx[i] += held.r * (static_cast<float>(held.dy[step][i]) * scale[i] - mean_g - n[step][i] * mean_gn);
      store(a.dx + row * a.C + c, dx);
      if (a.ddelta) store(static_cast<T*>(a.ddelta) + row * a.C + c, dx);
    });
  }
  if (parts) store_line<Held>(parts + int64_t(blockIdx.x) * 2 * a.C, a.C, dw, db);
}

// x' at one place.
template <class T>
__device__ float sum_of(const LayerNormBackward& a, int64_t at) {
  return a.delta ? a.x[at] + static_cast<float>(static_cast<const T*>(a.delta)[at]) : a.x[at];
}

// The same of any rows. A block owns a row, reads it twice, and adds to its line of `parts` where it lies.
template <class T, bool kCentered>
__global__ void __launch_bounds__(Reread::kBlockThreads, Reread::kThreads / Reread::kBlockThreads)
    norm_backward_rereading_kernel(const LayerNormBackward a, float* parts) {
  float* const line = parts ? parts + int64_t(blockIdx.x) * 2 * a.C : nullptr;
  for (int64_t row = blockIdx.x; row < a.R; row += gridDim.x) {
    const int64_t offset = row * a.C;
    const float m = kCentered ? a.m[row] : 0, r = a.r[row];
    const auto dy = [&](int64_t c) { return static_cast<float>(static_cast<const T*>(a.dy)[offset + c]); };
    const auto n = [&](int64_t c) { return (sum_of<T>(a, offset + c) - m) * r; };

    float sum_g = 0, sum_gn = 0;
    for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x) {
      const float g = dy(c) * a.w[c];
      sum_g += g, sum_gn += g * n(c);
    }
    const float mean_g = kCentered ? block_sum(sum_g) / static_cast<float>(a.C) : 0;
    const float mean_gn = block_sum(sum_gn) / static_cast<float>(a.C);
    for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x) {
      const float slope = dy(c), x = n(c);
      const float dx = (a.dsum ? a.dsum[offset + c] : 0) + r * (slope * a.w[c] - mean_g - x * mean_gn);
      a.dx[offset + c] = dx;
      if (a.ddelta) static_cast<T*>(a.ddelta)[offset + c] = round_to<T>(dx);
      if (!line) continue;
      const bool first = row == blockIdx.x;
      line[c] = (first ? 0 : line[c]) + slope * x;
      if (kCentered) line[a.C + c] = (first ? 0 : line[a.C + c]) + slope;
    }
  }
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

template <bool kCentered>
void forward(const char* name, const LayerNorm& a, Stream stream) {
  if (a.R == 0) return;
  const LaunchShape shape{ceil_div(a.R, kWarps), kWarps * kWarp, 0, stream};
  with_float(a.dtype, [&]<class T>(Type<T>) {
    const auto kernel = holds_rows<Quads<6>>(a)    ? norm_kernel<T, kCentered, Quads<6>>
                        : holds_rows<Quads<16>>(a) ? norm_kernel<T, kCentered, Quads<16>>
                                                   : norm_kernel<T, kCentered, Reread>;
    launch(name, kernel, shape, a);
  });
}

// Starts a kernel in blocks of `threads`, where a multiprocessor holds `resident` threads, and adds the blocks' lines.
template <class Kernel>
void backward_by(const char* name, Kernel kernel, int64_t threads, int64_t resident, const LayerNormBackward& a,
                 Stream stream) {
  const int64_t blocks = min(ceil_div(a.R, kLeastRows), kMultiprocessors * (resident / threads));
  const LaunchShape shape{blocks, threads, 0, stream};
  float* const none = nullptr;
  if (!a.dw) return launch(name, kernel, shape, a, none);
  Scratch parts(name, stream, blocks * 2 * a.C * int64_t{sizeof(float)});
  launch(name, kernel, shape, a, parts.floats());
  launch("norm_add_parts", add_parts_kernel, {{ceil_div(a.C, kWarp), a.db ? 2 : 1}, {kWarp, kWarp}, 0, stream},
         parts.floats(), a.dw, a.db, blocks, a.C);
}

// Threads, in whole warps, of which each owns `columns` of a row.
int64_t row_threads(int64_t C, int64_t columns) { return ceil_div(C, columns * kWarp) * kWarp; }

template <bool kCentered>
void backward(const char* name, const LayerNormBackward& a, Stream stream) {
  if (a.R == 0) return;
  with_float(a.dtype, [&]<class T>(Type<T>) {
    const auto by = [&]<class Held>(Type<Held>, auto kernel, int64_t threads) {
      backward_by(name, kernel, threads, Held::kThreads, a, stream);
    };
    using ByWarp = std::conditional_t<kCentered, Quads<6>, Pairs>;
    using ByBlock = Wide<kCentered>;
    if (holds_rows<ByWarp>(a))
      by(Type<ByWarp>{}, norm_backward_kernel<T, ByWarp>, ByWarp::kBlockThreads);
    else if (holds_rows<ByBlock>(a))
      by(Type<ByBlock>{}, norm_backward_kernel<T, ByBlock>, row_threads(a.C, ByBlock::kWidth * ByBlock::kSteps));
    else
      by(Type<Reread>{}, norm_backward_rereading_kernel<T, kCentered>, min(row_threads(a.C, 1), Reread::kBlockThreads));
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
