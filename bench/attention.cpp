// bench/attention [--preset lm|vit|fa3] [--seq 128,196] [--heads N] [--kv-heads N] [--dim N] [--causal 0|1]
// [--rope 0|1] [--dir fwd,bwd,decode] [--mask none|leftpad|varlen [--fill F]] [--kernel attention=fma] ...
//
// lm: 9 query heads on 3 key/value heads, causal, RoPE applied on the way; vit: 12 heads, every patch sees every patch;
// fa3: the shapes of FlashAttention's tables, 16,384 tokens in all and 2,048 columns of heads. Head size 64. Each may
// be named otherwise. varlen: sequences of lengths spread evenly about fill * seq, end to end. decode: one token a
// sequence over a cache of `seq` keys. Least bytes: q, k, v, o once (and their gradients). naive: scores, probabilities
// and their gradient stored, a thread an entry, rotations by our own kernel before and after. separate, on the cpu: for
// every head the library's products, and a softmax between them. On a GPU, cublaslt: the library's batched products,
// and a softmax between them; cudnn, in bf16: cuDNN's attention. Both on the same memory, between rotations by our own
// kernel where RoPE is applied, since neither has it; --rope 0 compares them without.
#include "kernels/attention/attention.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include "bench/common/attention_baselines.h"
#include "bench/common/attention_operands.h"
#include "bench/common/cublaslt_attention.h"
#include "bench/common/cudnn_attention.h"
#include "bench/common/kernel_bench.h"

using namespace nanovlm;
using namespace nanovlm::bench;

namespace {

// What all instances of a problem share.
struct Shared {
  std::shared_ptr<CudnnAttention> cudnn;  // building a plan takes long
  std::shared_ptr<CublasltAttention> cublaslt;
  std::shared_ptr<NaiveRoom> naive;  // none where naive is not wanted
};

const std::vector<std::string> kNaiveSources = {"kernels/naive/naive.cu", "kernels/rope/rope.cu"};

// The libraries that have this problem's attention. cuDNN has none in fp32, and pads on the right alone.
void add_peers(const Problem& s, const Device& device, const std::shared_ptr<Operands>& x, const Shared& shared,
               bool backward, std::vector<Baseline>& to) {
  if (device.kind() != DeviceKind::cuda || s.mask != Mask::none) return;
  const auto add = [&](const std::string& name, const auto& library) {
    const auto peer = std::make_shared<Peer<std::decay_t<decltype(*library)>>>(*x, library);
    to.push_back({name, [x, peer, backward] { backward ? peer->backward() : peer->forward(); }, true});
  };
  add("cublaslt", shared.cublaslt);
  if (s.dtype == DType::bf16) add("cudnn", shared.cudnn);
}

Instance forward_instance(const Problem& s, const Device& device, uint64_t seed, const Shared& shared) {
  const auto x = std::make_shared<Operands>(s, device, seed);
  Instance instance{[x] { x->forward(); }, [x] { return x->forward_outcomes(); }, {}};
  if (shared.naive && s.mask == Mask::none) {
    const auto naive = std::make_shared<Naive>(*x, shared.naive, false);
    instance.baselines.push_back({"naive", [x, naive] { naive->forward(); }, false, {}, kNaiveSources});
  }
  if (device.kind() == DeviceKind::cpu && s.mask == Mask::none) {
    const auto unfused = std::make_shared<Unfused>(*x);
    instance.baselines.push_back({"separate", [x, unfused] { (*unfused)(); }});
  }
  add_peers(s, device, x, shared, false, instance.baselines);
  return instance;
}

Instance backward_instance(const Problem& s, const Device& device, uint64_t seed, const Shared& shared) {
  const auto x = std::make_shared<Operands>(s, device, seed);
  x->forward();
  Instance instance{[x] { x->backward(); }, [x] { return x->backward_outcomes(); }, {}};
  if (shared.naive && s.mask == Mask::none) {
    const auto naive = std::make_shared<Naive>(*x, shared.naive, true);
    instance.baselines.push_back({"naive", [x, naive] { naive->backward(); }, false, {}, kNaiveSources});
  }
  add_peers(s, device, x, shared, true, instance.baselines);
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
void add_cases(const Problem& s, const Device& device, int64_t full_batch, bool with_naive, std::vector<Case>& cases) {
  const Shared shared{std::make_shared<CudnnAttention>(s, device), std::make_shared<CublasltAttention>(s, device),
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
    if (s.mask == Mask::varlen) c.shape.push_back({"rows", s.rows()});
    c.full = static_cast<double>(full_batch) / static_cast<double>(s.B), c.sources = {source}, c.limits.sectors = 1.35;
    if (dir == "bwd" && in_two_kernels(s, device))
      c.excesses = {{"attention", "bytes", 1.65, "two kernels read q, k, v and do: one for dq, one for dk and dv"}};
    c.make = [=](uint64_t seed) { return make(s, device, seed, shared); };
    cases.push_back(std::move(c));
  };
  const double q = s.q_bytes(), kv = s.kv_bytes(), one = q / static_cast<double>(s.T);
  add("fwd", s.flops(), 2 * q + 2 * kv, "kernels/attention/attention.cu", forward_instance);
  add("bwd", 2.5 * s.flops(), 4 * q + 4 * kv, "kernels/attention/attention_backward.cu", backward_instance);
  if (s.mask == Mask::varlen) return;
  add("decode", s.flops() / static_cast<double>(s.T) * (s.causal ? 2 : 1), 2 * one + 2 * kv,
      "kernels/attention/attention_decode.cu", decode_instance);
}

const std::map<std::string, Mask> kMasks = {{"none", Mask::none}, {"leftpad", Mask::leftpad}, {"varlen", Mask::varlen}};

// The problem as the command line gives it: what it leaves out is the preset's.
struct Options {
  std::vector<int64_t> seqs;
  std::string preset = "lm", mask = "none";
  int heads = 0, kv_heads = 0, dim = 64, causal = -1, rope = -1;
  double fill = 0.5;

  bool lm() const { return preset == "lm"; }
  bool fa3() const { return preset == "fa3"; }
  int H() const { return heads > 0 ? heads : fa3() ? std::max(1, 2048 / dim) : lm() ? 9 : 12; }
  int G() const { return kv_heads > 0 ? kv_heads : heads > 0 || !lm() ? H() : 3; }
  int64_t full_batch(int64_t T) const { return fa3() ? std::max<int64_t>(1, 16384 / T) : 256; }
  std::vector<int64_t> seqs_or_default() const {
    return seqs.empty() ? std::vector<int64_t>{fa3() ? 512 : lm() ? 128 : 196} : seqs;
  }

  void add_to(CLI::App& app) {
    app.add_option("--seq", seqs, "tokens of a sequence; default 128 for lm, 196 for vit, 512 for fa3")
        ->delimiter(',')
        ->check(CLI::PositiveNumber);
    app.add_option("--preset", preset, "lm, vit or fa3")
        ->check(CLI::IsMember({"lm", "vit", "fa3"}))
        ->capture_default_str();
    app.add_option("--heads", heads, "of queries; default 9 for lm, 12 for vit, 2048 / dim for fa3")
        ->check(CLI::PositiveNumber);
    app.add_option("--kv-heads", kv_heads, "of keys and values; default 3 for lm, else as many as --heads")
        ->check(CLI::PositiveNumber);
    app.add_option("--dim", dim, "entries of a head")->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--causal", causal, "0 or 1; default 1 for lm, else 0")->check(CLI::Range(0, 1));
    app.add_option("--mask", mask, "none, leftpad or varlen")->check(CLI::IsMember(kMasks));
    app.add_option("--fill", fill, "varlen: the sequences' mean length, of --seq")
        ->check(CLI::Range(0.01, 1.0))
        ->capture_default_str();
    app.add_option("--rope", rope, "0 or 1; default 1 for lm, else 0")->check(CLI::Range(0, 1));
    app.callback([this] {
      if (dim % 2 != 0 && or_lm(rope))
        throw CLI::ValidationError("--dim", "RoPE turns pairs of entries: dim must be even");
      if (H() % G() != 0) throw CLI::ValidationError("--kv-heads", text(G(), " must divide the ", H(), " of --heads"));
    });
  }
  bool or_lm(int said) const { return said < 0 ? lm() : said == 1; }
  Problem problem(int64_t B, int64_t T, DType dtype) const {
    return {B, T, H(), G(), dim, or_lm(causal), or_lm(rope), kMasks.at(mask), dtype, lengths(B, T)};
  }
  // Of B sequences: T, or from twice `fill` - 1 to twice `fill` of it, in a random order.
  std::vector<int64_t> lengths(int64_t B, int64_t T) const {
    std::vector<int64_t> all(static_cast<size_t>(B), T);
    if (mask != "varlen") return all;
    const double least = std::max(0.0, 2 * fill - 1), most = std::min(1.0, 2 * fill);
    const std::vector<int64_t> places = permutation(B, 1);
    for (size_t b = 0; b < all.size(); ++b) {
      const double part = least + (most - least) * (static_cast<double>(places[b]) + 0.5) / static_cast<double>(B);
      all[b] = std::clamp<int64_t>(std::llround(part * static_cast<double>(T)), 1, T);
    }
    return all;
  }
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  KernelBench bench("attention", {"fwd", "bwd", "decode"});
  options.add_to(bench.app());
  return bench.run(argc, argv, [&](const Request& request) {
    std::vector<Case> cases;
    for (const int64_t T : options.seqs_or_default())
      for (const DType dtype : request.dtypes) {
        const int64_t full = options.full_batch(T);
        const int64_t B =
            request.batch_or(full, std::min<int64_t>(full, 12), std::min<int64_t>(full, dtype == DType::bf16 ? 4 : 2));
        add_cases(options.problem(B, T, dtype), request.device, full, request.impls.wanted("naive"), cases);
      }
    return cases;
  });
}
