// bench/attention [--seq 128,196] [--preset lm|vit] [--batch N] [--dir fwd,bwd] [--dtype f32,bf16]
//
// The attention kernels of the cpu device. lm: 9 query heads on 3 key/value heads, causal; vit: 12 heads, every patch
// sees every patch; head size 64. FLOPs by FlashAttention's convention: a causal mask counts half, backward is 2.5
// times forward. Beside them: the two matrix products of the unfused form alone (unmasked, no softmax), timed in turns.
#include <CLI/CLI.hpp>
#include <cmath>
#include <iostream>

#include "bench/common/harness.h"
#include "engine/ops.h"
#include "engine/random.h"
#include "kernels/attention/attention.h"
#include "kernels/matmul/matmul.h"

using namespace nanovlm;
using namespace nanovlm::bench;

namespace {

struct Case {
  int64_t B, T;
  int H, G, D;
  bool causal;
  DType dtype;
  int64_t rows() const { return B * T; }
  double flops() const {
    return 4.0 * static_cast<double>(B * H * D) * static_cast<double>(T * T) * (causal ? 0.5 : 1);
  }
};

struct Buffers {
  Tensor q, k, v, o, lse, d_o, dq, dk, dv, bounds;

  Buffers(const Case& c, const Device& device) {
    Random random(1);
    const auto normal = [&](int heads) {
      return cast(random_normal({c.rows(), heads * c.D}, 1, random, device), c.dtype);
    };
    q = normal(c.H), k = normal(c.G), v = normal(c.G), d_o = normal(c.H);
    o = empty_like(q), dq = empty_like(q), dk = empty_like(k), dv = empty_like(v);
    lse = empty({c.rows(), c.H}, DType::f32, device);
    std::vector<int32_t> at;
    for (int64_t b = 0; b <= c.B; ++b) at.push_back(static_cast<int32_t>(b * c.T));
    bounds = from_host(at, {c.B + 1}, device);
  }
};

kernels::AttentionShape shape_of(const Case& c, const Buffers& b) {
  return {c.rows(),
          c.B,
          b.bounds.i32(),
          c.T,
          nullptr,
          c.H,
          c.G,
          c.D,
          c.causal,
          static_cast<float>(1 / std::sqrt(static_cast<double>(c.D))),
          nullptr,
          nullptr,
          nullptr,
          c.dtype};
}

void forward(const Case& c, const Buffers& b) {
  on(b.q.device(), "attention", [&](auto backend, Stream stream) {
    kernels::attention(
        backend,
        {shape_of(c, b), b.q.data(), b.k.data(), b.v.data(), c.H * c.D, c.G * c.D, c.G * c.D, b.o.data(), b.lse.f32()},
        stream);
  });
}

void backward(const Case& c, const Buffers& b) {
  on(b.q.device(), "attention_backward", [&](auto backend, Stream stream) {
    kernels::attention_backward(backend,
                                {shape_of(c, b), b.q.data(), b.k.data(), b.v.data(), c.H * c.D, c.G * c.D, c.G * c.D,
                                 b.o.data(), b.d_o.data(), b.lse.f32(), b.dq.data(), b.dk.data(), b.dv.data()},
                                stream);
  });
}

// scores = x x^T and out = scores x, as often as the unfused form would: x is one head's [T, D].
void products(const Case& c, const Tensor& x, const Tensor& scores, const Tensor& out) {
  on(x.device(), "matmul", [&](auto backend, Stream stream) {
    for (int64_t i = 0; i < c.B * c.H; ++i) {
      kernels::matmul(backend,
                      {x.data(), x.data(), scores.data(), nullptr, c.T, c.T, c.D, false, true, false, c.dtype, c.dtype},
                      stream);
      kernels::matmul(
          backend, {scores.data(), x.data(), out.data(), nullptr, c.T, c.D, c.T, false, false, false, c.dtype, c.dtype},
          stream);
    }
  });
}

// The last row of the last sequence, first and last head, in fp64: how far the kernel is off.
double worst_error(const Case& c, const Buffers& b) {
  const std::vector<float> q = to_host(b.q), k = to_host(b.k), v = to_host(b.v), o = to_host(b.o);
  double worst = 0;
  for (const int h : {0, c.H - 1}) {
    const int64_t first = (c.B - 1) * c.T, last = c.rows() - 1, g = h / (c.H / c.G);
    const auto at = [&](const std::vector<float>& x, int64_t row, int64_t head, int heads, int64_t d) -> double {
      return x[static_cast<size_t>((row * heads + head) * c.D + d)];
    };
    std::vector<double> p, y(static_cast<size_t>(c.D));
    double sum = 0;
    for (int64_t j = first; j <= last; ++j) {
      double s = 0;
      for (int64_t d = 0; d < c.D; ++d) s += at(q, last, h, c.H, d) * at(k, j, g, c.G, d);
      p.push_back(std::exp(s / std::sqrt(static_cast<double>(c.D)) - 8));
      sum += p.back();
    }
    for (int64_t d = 0; d < c.D; ++d) {
      for (int64_t j = first; j <= last; ++j)
        y[static_cast<size_t>(d)] += p[static_cast<size_t>(j - first)] / sum * at(v, j, g, c.G, d);
      worst = std::max(worst, std::abs(y[static_cast<size_t>(d)] - at(o, last, h, c.H, d)));
    }
  }
  return worst;
}

void run(const Case& c, const std::vector<std::string>& directions, Report& report) {
  const Device device = Device::open("cpu");
  const Buffers b(c, device);
  forward(c, b);
  const double error = worst_error(c, b);
  require(error < (c.dtype == DType::f32 ? 1e-4 : 5e-2), text("attention is off by ", error));
  const auto row = [&](const std::string& impl, const std::string& dir, const Timing& t, double flops) {
    report.add({{"impl", value(impl)},
                {"dir", value(dir)},
                {"seq", value(c.T)},
                {"batch", value(c.B)},
                {"heads", value(text(c.H, "/", c.G, c.causal ? " causal" : ""))},
                {"dtype", value(std::string(name_of(c.dtype)))},
                {"us p50", value(t.median * 1e6, 1)},
                {"us p10", value(t.p10 * 1e6, 1)},
                {"us p90", value(t.p90 * 1e6, 1)},
                {"GFLOP/s", value(flops / t.median * 1e-9, 1)},
                {"abs.err", value(error, 6)}});
  };
  const Tensor scores = empty({c.T, c.T}, c.dtype, device);
  const Tensor head =
      cast(from_host(std::vector<float>(static_cast<size_t>(c.T * c.D), 0.01f), {c.T, c.D}, device), c.dtype);
  const Tensor out = empty_like(head);
  for (const std::string& direction : directions) {
    if (direction == "fwd") {
      const auto timings = time_in_turns({[&] { forward(c, b); }, [&] { products(c, head, scores, out); }});
      row("ours", "fwd", timings[0], c.flops());
      row("products alone", "fwd", timings[1], c.flops() * (c.causal ? 2 : 1));
    } else {
      row("ours", "bwd", time([&] { backward(c, b); }), 2.5 * c.flops());
    }
  }
}

}  // namespace

int main(int argc, char** argv) try {
  std::vector<int64_t> seqs;
  std::vector<std::string> directions = {"fwd", "bwd"}, dtypes = {"f32", "bf16"};
  std::string preset = "lm";
  int64_t batch = 12;
  Report report("attention");
  report.app().add_option("--seq", seqs, "tokens of a sequence; default 128 for lm, 196 for vit")->delimiter(',');
  report.app().add_option("--preset", preset, "lm or vit")->check(CLI::IsMember({"lm", "vit"}))->capture_default_str();
  report.app().add_option("--batch", batch, "sequences")->capture_default_str();
  report.app().add_option("--dir", directions, "fwd, bwd")->delimiter(',')->check(CLI::IsMember({"fwd", "bwd"}));
  report.app().add_option("--dtype", dtypes, "f32, bf16")->delimiter(',')->check(CLI::IsMember({"f32", "bf16"}));
  int exit_code = 0;
  if (!report.parse(argc, argv, exit_code)) return exit_code;
  const bool lm = preset == "lm";
  if (seqs.empty()) seqs = {lm ? 128 : 196};
  for (const int64_t T : seqs)
    for (const std::string& dtype : dtypes)
      run({batch, T, lm ? 9 : 12, lm ? 3 : 12, 64, lm, dtype == "f32" ? DType::f32 : DType::bf16}, directions, report);
  return report.finish();
} catch (const std::exception& error) {
  std::cerr << "bench/attention: " << error.what() << std::endl;
  return 1;
}
