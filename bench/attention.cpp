// bench/attention [--preset lm|vit] [--seq 128,196] [--heads N] [--kv-heads N] [--dim N] [--causal 0|1] [--rope 0|1]
// [--dir fwd,bwd,decode] [--mask none|leftpad] [--kernel attention=fma] ...
//
// lm: 9 query heads on 3 key/value heads, causal, RoPE applied on the way; vit: 12 heads, every patch sees every patch;
// head size 64; each may be named otherwise. decode: one token a sequence over a cache of `seq` keys. Least bytes: q,
// k, v, o once (and their gradients). naive: scores, probabilities and their gradient stored, a thread an entry,
// rotations by our own kernel before and after. separate, on the cpu: for every head the library's products, and a
// softmax between them. cudnn, on a GPU in bf16: cuDNN's attention on the same memory, between rotations by our own
// kernel where RoPE is applied, since cuDNN has none; --rope 0 compares the bare products.
#include "kernels/attention/attention.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>

#include "bench/common/attention_operands.h"
#include "bench/common/cudnn_attention.h"
#include "bench/common/kernel_bench.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/matmul/matmul.h"
#include "kernels/naive/naive.h"
#include "kernels/parallel.h"
#include "kernels/rope/rope.h"

using namespace nanovlm;
using namespace nanovlm::bench;

namespace {

// RoPE as a step of its own, before what has none.
class Rotation {
 public:
  explicit Rotation(const Operands& of) : x_(of) {
    std::vector<int32_t> positions;
    for (int64_t row = 0; row < of.s.rows(); ++row) positions.push_back(static_cast<int32_t>(row % of.s.T));
    positions_ = from_host(positions, {of.s.rows()}, of.q.device());
  }
  // Where x is to be rotated to: x itself where nothing is.
  Tensor place(const Tensor& x) const { return x_.s.rope ? empty_like(x) : x; }
  void turn(const Tensor& from, const Tensor& to, int heads, bool back = false) const {
    if (!x_.s.rope) return;
    on(from.device(), "rope", [&](auto backend, Stream stream) {
      kernels::rope(backend,
                    {from.data(), to.data(), x_.cos.f32(), x_.sin.f32(), positions_.i32(), x_.s.rows(), heads, x_.s.D,
                     back, x_.s.dtype},
                    stream);
    });
  }

 private:
  const Operands& x_;
  Tensor positions_;
};

// The unfused form on the host: rotate, then for every head gather, multiply, softmax, multiply, scatter.
class Unfused {
 public:
  explicit Unfused(const Operands& of) : x_(of), s_(of.s), rotation_(of) {
    const Device& device = of.q.device();
    q_ = rotation_.place(of.q), k_ = rotation_.place(of.k);
    for (Tensor* head : {&one_q_, &one_k_, &one_v_, &one_o_}) *head = empty({s_.T, s_.D}, s_.dtype, device);
    scores_ = empty({s_.T, s_.T}, DType::f32, device), weights_ = empty({s_.T, s_.T}, s_.dtype, device);
  }

  void operator()() const {
    rotation_.turn(x_.q, q_, s_.H), rotation_.turn(x_.k, k_, s_.G);
    for (int64_t b = 0; b < s_.B; ++b)
      for (int h = 0; h < s_.H; ++h) {
        const int g = h / (s_.H / s_.G);
        move<true>(q_, one_q_, b, h, s_.H), move<true>(k_, one_k_, b, g, s_.G), move<true>(x_.v, one_v_, b, g, s_.G);
        multiply(one_q_, one_k_, scores_, s_.T, s_.D, true);
        soften();
        multiply(weights_, one_v_, one_o_, s_.D, s_.T, false);
        move<false>(x_.o, one_o_, b, h, s_.H);
      }
  }

 private:
  // Between the rows of all heads and one head's own matrix.
  template <bool kGather>
  void move(const Tensor& rows, const Tensor& one, int64_t b, int head, int heads) const {
    const size_t bytes = static_cast<size_t>(s_.D * size_of(s_.dtype));
    for (int64_t t = 0; t < s_.T; ++t) {
      char* in_rows = static_cast<char*>(rows.data()) + static_cast<size_t>((b * s_.T + t) * heads + head) * bytes;
      char* in_one = static_cast<char*>(one.data()) + static_cast<size_t>(t) * bytes;
      std::memcpy(kGather ? in_one : in_rows, kGather ? in_rows : in_one, bytes);
    }
  }
  void multiply(const Tensor& a, const Tensor& b, const Tensor& c, int64_t N, int64_t K, bool transpose_b) const {
    on(a.device(), "matmul", [&](auto backend, Stream stream) {
      kernels::matmul(
          backend, {a.data(), b.data(), c.data(), nullptr, s_.T, N, K, false, transpose_b, false, s_.dtype, c.dtype()},
          stream);
    });
  }
  void soften() const {
    with_float(s_.dtype, [&]<class T>(Type<T>) {
      kernels::parallel_for(s_.T, 16, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t)
          soften_row(scores_.f32() + t * s_.T, static_cast<T*>(weights_.data()) + t * s_.T, t);
      });
    });
  }
  template <class T>
  void soften_row(float* s, T* w, int64_t t) const {
    const float scale = s_.scale();
    const int64_t seen = s_.causal ? t + 1 : s_.T;
    const float largest = *std::max_element(s, s + seen);
    float sum = 0;
    for (int64_t j = 0; j < seen; ++j) sum += s[j] = std::exp((s[j] - largest) * scale);
    for (int64_t j = 0; j < s_.T; ++j) w[j] = T(j < seen ? s[j] / sum : 0);
  }

  const Operands& x_;
  Problem s_;
  Rotation rotation_;
  Tensor q_, k_, one_q_, one_k_, one_v_, one_o_, scores_, weights_;
};

// What lies between the steps of Naive: one for all operands of a problem, since it is many times their size.
struct NaiveRoom {
  Tensor delta, p, ds;

  void make(const Operands& x, bool backward) {
    if (!p.defined()) p = empty({x.s.rows(), x.s.H, x.s.T}, DType::f32, x.q.device());
    if (backward && !ds.defined()) delta = empty_like(x.lse), ds = empty_like(p);
  }
};

// Either direction by plain kernels, with the probabilities, and the scores' gradient, stored.
class Naive {
 public:
  Naive(const Operands& of, std::shared_ptr<NaiveRoom> room, bool backward)
      : x_(of), s_(of.s), room_(std::move(room)), rotation_(of), q_(rotation_.place(of.q)), k_(rotation_.place(of.k)) {
    room_->make(of, backward);
  }

  void forward() const {
    turn();
    on(q_.device(), "naive_attention", [&](auto backend, Stream stream) {
      kernels::naive_attention(backend,
                               {{shape(), q_.data(), k_.data(), x_.v.data(), s_.H * s_.D, s_.G * s_.D, s_.G * s_.D,
                                 x_.o.data(), x_.lse.f32()},
                                room_->p.f32()},
                               stream);
    });
  }
  void backward() const {
    turn();
    on(q_.device(), "naive_attention_backward", [&](auto backend, Stream stream) {
      kernels::naive_attention_backward(
          backend,
          {{shape(), q_.data(), k_.data(), x_.v.data(), s_.H * s_.D, s_.G * s_.D, s_.G * s_.D, x_.o.data(),
            x_.d_o.data(), x_.lse.f32(), x_.dq.data(), x_.dk.data(), x_.dv.data()},
           room_->delta.f32(),
           room_->p.f32(),
           room_->ds.f32()},
          stream);
    });
    rotation_.turn(x_.dq, x_.dq, s_.H, true), rotation_.turn(x_.dk, x_.dk, s_.G, true);
  }

 private:
  void turn() const { rotation_.turn(x_.q, q_, s_.H), rotation_.turn(x_.k, k_, s_.G); }
  kernels::AttentionShape shape() const {
    kernels::AttentionShape shape = x_.shape();
    shape.cos = shape.sin = nullptr;
    return shape;
  }

  const Operands& x_;
  Problem s_;
  std::shared_ptr<NaiveRoom> room_;
  Rotation rotation_;
  Tensor q_, k_;
};

// cuDNN on an instance's operands. Its first call makes room for what lies between steps, so that machines and builds
// without cuDNN are left alone where it is not asked for, and clears what cuDNN is to write.
class Cudnn {
 public:
  Cudnn(const Operands& of, std::shared_ptr<CudnnAttention> library) : x_(of), s_(of.s), library_(std::move(library)) {}

  void forward() {
    if (!rotation_) prepare({x_.o});
    turn();
    library_->forward(q_, k_, x_.v, x_.o, stats_);
  }
  // After its own forward for the statistics, once.
  void backward() {
    if (!rotation_) {
      prepare({x_.dq, x_.dk, x_.dv});
      turn();
      library_->forward(q_, k_, x_.v, empty_like(x_.o), stats_);
    }
    turn();
    library_->backward(q_, k_, x_.v, x_.o, x_.d_o, stats_, x_.dq, x_.dk, x_.dv);
    rotation_->turn(x_.dq, x_.dq, s_.H, true), rotation_->turn(x_.dk, x_.dk, s_.G, true);
  }

 private:
  void prepare(const std::vector<Tensor>& results) {
    rotation_.emplace(x_);
    q_ = rotation_->place(x_.q), k_ = rotation_->place(x_.k);
    stats_ = empty({s_.B, s_.H, s_.T}, DType::f32, x_.q.device());
    for (const Tensor& result : results)
      on(result.device(), "fill", [&](auto backend, Stream stream) {
        kernels::fill(backend, {result.data(), result.numel(), 0.0f, s_.dtype}, stream);
      });
  }
  void turn() const { rotation_->turn(x_.q, q_, s_.H), rotation_->turn(x_.k, k_, s_.G); }

  const Operands& x_;
  Problem s_;
  std::shared_ptr<CudnnAttention> library_;
  std::optional<Rotation> rotation_;
  Tensor q_, k_, stats_;
};

// Whether cuDNN has this problem's attention: it has none in fp32, and pads on the right alone.
bool has_cudnn(const Problem& s, const Device& device) {
  return device.kind() == DeviceKind::cuda && s.dtype == DType::bf16 && !s.leftpad;
}

// What all instances of a problem share.
struct Shared {
  std::shared_ptr<CudnnAttention> library;  // building a plan takes long
  std::shared_ptr<NaiveRoom> naive;         // none where naive is not wanted
};

const std::vector<std::string> kNaiveSources = {"kernels/naive/naive.cu", "kernels/rope/rope.cu"};

Instance forward_instance(const Problem& s, const Device& device, uint64_t seed, const Shared& shared) {
  const auto x = std::make_shared<Operands>(s, device, seed);
  Instance instance{[x] { x->forward(); }, [x] { return x->forward_outcomes(); }, {}};
  if (shared.naive && !s.leftpad) {
    const auto naive = std::make_shared<Naive>(*x, shared.naive, false);
    instance.baselines.push_back({"naive", [x, naive] { naive->forward(); }, false, {}, kNaiveSources});
  }
  if (device.kind() == DeviceKind::cpu && !s.leftpad) {
    const auto unfused = std::make_shared<Unfused>(*x);
    instance.baselines.push_back({"separate", [x, unfused] { (*unfused)(); }});
  }
  if (has_cudnn(s, device)) {
    const auto cudnn = std::make_shared<Cudnn>(*x, shared.library);
    instance.baselines.push_back({"cudnn", [x, cudnn] { cudnn->forward(); }, true});
  }
  return instance;
}

Instance backward_instance(const Problem& s, const Device& device, uint64_t seed, const Shared& shared) {
  const auto x = std::make_shared<Operands>(s, device, seed);
  x->forward();
  Instance instance{[x] { x->backward(); }, [x] { return x->backward_outcomes(); }, {}};
  if (shared.naive && !s.leftpad) {
    const auto naive = std::make_shared<Naive>(*x, shared.naive, true);
    instance.baselines.push_back({"naive", [x, naive] { naive->backward(); }, false, {}, kNaiveSources});
  }
  if (has_cudnn(s, device)) {
    const auto cudnn = std::make_shared<Cudnn>(*x, shared.library);
    instance.baselines.push_back({"cudnn", [x, cudnn] { cudnn->backward(); }, true});
  }
  return instance;
}

Instance decode_instance(const Problem& s, const Device& device, uint64_t seed, const Shared&) {
  const auto x = std::make_shared<DecodeOperands>(s, device, seed);
  return {[x] { x->run(); }, [x] { return x->outcomes(); }, {}};
}

// Whether the gradient is not that of one block a head, which holds a segment's keys or queries as a whole.
bool in_two_kernels(const Problem& s, const Device& device) {
  const char* const chosen = device.context().kernels.of("attention_backward");
  const std::string kernel = chosen ? chosen : "";
  return s.T > 256 || kernel == "mma" || kernel == "fma";
}

// All directions of one problem.
void add_cases(const Problem& s, const Device& device, bool with_naive, std::vector<Case>& cases) {
  const Shared shared{
      std::make_shared<CudnnAttention>(CudnnAttention::Problem{s.B, s.T, s.H, s.G, s.D, s.causal, s.scale()}, device),
      with_naive ? std::make_shared<NaiveRoom>() : nullptr};
  const auto add = [&](const std::string& dir, double flops, double bytes, const std::string& source, auto make) {
    Case c{dir == "decode" ? "attention_decode" : "attention",
           dir,
           s.dtype,
           {{"seq", s.T},
            {"batch", s.B},
            {"heads", s.H},
            {"kv_heads", s.G},
            {"dim", s.D},
            {"causal", s.causal},
            {"rope", s.rope}},
           flops,
           bytes};
    c.full = 256.0 / static_cast<double>(s.B), c.sources = {source}, c.limits.sectors = 1.35;
    if (dir == "bwd" && in_two_kernels(s, device))
      c.excesses = {{"attention", "bytes", 1.65, "two kernels read q, k, v and do: one for dq, one for dk and dv"}};
    c.make = [=](uint64_t seed) { return make(s, device, seed, shared); };
    cases.push_back(std::move(c));
  };
  const double q = s.q_bytes(), kv = s.kv_bytes(), one = q / static_cast<double>(s.T);
  add("fwd", s.flops(), 2 * q + 2 * kv, "kernels/attention/attention.cu", forward_instance);
  add("bwd", 2.5 * s.flops(), 4 * q + 4 * kv, "kernels/attention/attention_backward.cu", backward_instance);
  add("decode", s.flops() / static_cast<double>(s.T) * (s.causal ? 2 : 1), 2 * one + 2 * kv,
      "kernels/attention/attention_decode.cu", decode_instance);
}

// The problem as the command line gives it: what it leaves out is the preset's.
struct Options {
  std::vector<int64_t> seqs;
  std::string preset = "lm", mask = "none";
  int heads = 0, kv_heads = 0, dim = 64, causal = -1, rope = -1;

  bool lm() const { return preset == "lm"; }
  int H() const { return heads > 0 ? heads : lm() ? 9 : 12; }
  int G() const { return kv_heads > 0 ? kv_heads : heads > 0 || !lm() ? H() : 3; }

  void add_to(CLI::App& app) {
    app.add_option("--seq", seqs, "tokens of a sequence; default 128 for lm, 196 for vit")
        ->delimiter(',')
        ->check(CLI::PositiveNumber);
    app.add_option("--preset", preset, "lm or vit")->check(CLI::IsMember({"lm", "vit"}))->capture_default_str();
    app.add_option("--heads", heads, "of queries; default 9 for lm, 12 for vit")->check(CLI::PositiveNumber);
    app.add_option("--kv-heads", kv_heads, "of keys and values; default --heads, else 3 for lm, 12 for vit")
        ->check(CLI::PositiveNumber);
    app.add_option("--dim", dim, "entries of a head")->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--causal", causal, "0 or 1; default 1 for lm, 0 for vit")->check(CLI::Range(0, 1));
    app.add_option("--mask", mask, "none or leftpad")->check(CLI::IsMember({"none", "leftpad"}));
    app.add_option("--rope", rope, "0 or 1; default 1 for lm, 0 for vit")->check(CLI::Range(0, 1));
    app.callback([this] {
      if (H() % G() != 0) throw CLI::ValidationError("--kv-heads", text(G(), " must divide the ", H(), " of --heads"));
    });
  }
  Problem problem(int64_t B, int64_t T, DType dtype) const {
    const auto or_lm = [&](int said) { return said < 0 ? lm() : said == 1; };
    return {B, T, H(), G(), dim, or_lm(causal), or_lm(rope), mask == "leftpad", dtype};
  }
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  KernelBench bench("attention", {"fwd", "bwd", "decode"});
  options.add_to(bench.app());
  return bench.run(argc, argv, [&](const Request& request) {
    std::vector<Case> cases;
    for (const int64_t T : options.seqs.empty() ? std::vector<int64_t>{options.lm() ? 128 : 196} : options.seqs)
      for (const DType dtype : request.dtypes)
        add_cases(options.problem(request.batch_or(256, 12, dtype == DType::bf16 ? 4 : 2), T, dtype), request.device,
                  request.impls.wanted("naive"), cases);
    return cases;
  });
}
