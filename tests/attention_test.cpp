#include "kernels/attention/attention.h"

#include "tests/support/attention_cases.h"
#include "tests/support/backends.h"
#include "tests/support/fixture.h"
#include "tests/support/tolerance.h"

namespace nanovlm::testing {
namespace {

template <class Backend>
Forward forward(Backend backend, Stream stream, Operands& x, const char* kernel = nullptr) {
  return forward_by([&](const kernels::Attention& a) { kernels::attention(backend, a, stream); }, x, kernel);
}

template <class Backend>
Backward backward(Backend backend, Stream stream, Operands& x, const Buffer& o, const Buffer& lse,
                  const char* kernel = nullptr) {
  return backward_by([&](const kernels::AttentionBackward& a) { kernels::attention_backward(backend, a, stream); }, x,
                     o, lse, kernel);
}

// Whether the kernel for Hopper GPUs, which is taken on request alone, does them.
bool fits_wgmma(const Operands& x) {
  return x.dtype == DType::bf16 && x.setting.D == 64 && x.k_stride % 8 == 0 && x.longest() <= 208;
}

// Every kernel of the operation that can do these operands, its own choice or not. Hosts have one.
[[maybe_unused]] std::vector<const char*> kernels_for(const Operands& x, bool gradient, bool hopper) {
  const int D = x.setting.D;
  std::vector<const char*> kernels{"fma"};
  if (gradient && D <= 64 && x.longest() <= (hopper ? 256 : 112)) kernels.push_back("fma_whole");
  if (x.dtype == DType::bf16 && (D == 32 || D == 64 || D == 128) && x.k_stride % 8 == 0) {
    kernels.push_back("mma");
    if (D <= 64 && x.longest() <= 256 && (!gradient || x.setting.H / x.setting.G <= 16)) kernels.push_back("whole");
  }
  if (hopper && !gradient && fits_wgmma(x)) kernels.push_back("wgmma");
  return kernels;
}

// Calls f(backend, stream, kernel) with the operation's own choice, null, on every backend, and with each of its
// kernels on simt and cuda. Instrumented, in which an access costs some hundred times its own time, the own choice is
// left out: it is one of the kernels.
template <class F>
void for_each_kernel([[maybe_unused]] const Operands& x, [[maybe_unused]] bool gradient, const F& f) {
#if !defined(NANOVLM_SIMT_INSTRUMENTED)
  for_each_backend([&](auto backend, Stream stream) { f(backend, stream, nullptr); });
#endif
#if defined(NANOVLM_SIMT_KERNELS)
  if (is_tested("simt"))
    for (const char* kernel : kernels_for(x, gradient, true)) {
      simt::Executor executor({.order = simt::Order::priorities, .seed = 3});
      f(Simt{}, executor.stream(), kernel);
    }
#endif
#if defined(NANOVLM_CUDA_KERNELS) && !defined(NANOVLM_SIMT_INSTRUMENTED)
  if (is_tested("cuda") && gpu())
    for (const char* kernel : kernels_for(x, gradient, gpu_is_hopper())) f(Cuda{}, gpu()->stream(), kernel);
#endif
}

TEST_CASE("attention is as exact as the plain formula") {
  for_each_case([](Operands& x) {
    const auto exact = reference::attention<double>(x.setting, x.q, x.k, x.v, x.dtype);
    const auto plain = reference::attention<float>(x.setting, x.q, x.k, x.v, x.dtype);
    const auto check_kernel = [&](auto backend, Stream stream, const char* kernel) {
      INFO("kernel " << (kernel ? kernel : "of the operation's choice"));
      const Forward got = forward(backend, stream, x, kernel);
      check_close("o", got.o.values(), exact.o, plain.o);
      check_close("lse", got.lse.values(), exact.lse, plain.lse);
    };
    for_each_kernel(x, false, check_kernel);
  });
}

TEST_CASE("attention's gradients are as exact as the plain formula") {
  for_each_case([](Operands& x) {
    const auto saved = reference::attention<double>(x.setting, x.q, x.k, x.v, x.dtype);
    const Buffer o(saved.o, x.dtype), lse(saved.lse, DType::f32);
    const auto exact =
        reference::attention_backward<double>(x.setting, x.q, x.k, x.v, o.values(), lse.values(), x.d_o, x.dtype);
    const auto plain =
        reference::attention_backward<float>(x.setting, x.q, x.k, x.v, o.values(), lse.values(), x.d_o, x.dtype);
    const AttentionSetting& s = x.setting;
    const auto check_kernel = [&](auto backend, Stream stream, const char* kernel) {
      INFO("kernel " << (kernel ? kernel : "of the operation's choice"));
      const Backward got = backward(backend, stream, x, o, lse, kernel);
      check_close("dq", gathered(got.dq, s.H * s.D, x.q_stride), exact.dq, plain.dq, exact.dq_terms);
      check_close("dk", gathered(got.dk, s.G * s.D, x.k_stride), exact.dk, plain.dk, exact.dk_terms);
      check_close("dv", gathered(got.dv, s.G * s.D, x.v_stride), exact.dv, plain.dv);
    };
    for_each_kernel(x, true, check_kernel);
  });
}

#if defined(NANOVLM_SIMT_KERNELS)
TEST_CASE("a kernel that was asked for refuses what it does not do") {
  Operands x({{5}, 1, 1, 8, true, true}, DType::f32, Random(1));
  const auto saved = reference::attention<double>(x.setting, x.q, x.k, x.v, x.dtype);
  simt::Executor executor;
  CHECK_THROWS_WITH(
      backward(Simt{}, executor.stream(), x, Buffer(saved.o, x.dtype), Buffer(saved.lse, DType::f32), "whole"),
      contains("attention_backward: kernel \"whole\" does "));
}

// Three tiles of keys, or of queries, in every kernel, by whatever width it is made for: head sizes by 32, 64 and 128,
// and segments by 64, 128 and 208 rows for wgmma. Twelve heads of three tiles are three chunks of the gradient's whole
// segments.
const Case kOrderCases[] = {{{130}, 1, 1, 32, true, true, Mask::vlm},
                            {{33}, 12, 1, 64, true, true},
                            {{70}, 1, 1, 64, false, true, Mask::left},
                            {{130}, 1, 1, 64, true, true, Mask::vlm},
                            {{130}, 1, 1, 128, true, true}};

// Instrumented, which finds what is not ordered in whatever order it ran, three of the orders.
std::vector<simt::Options> order_runs() {
#if defined(NANOVLM_SIMT_INSTRUMENTED)
  return {{.order = simt::Order::fifo}, {.order = simt::Order::lifo}, {.order = simt::Order::random, .seed = 1}};
#else
  return simt_runs();
#endif
}

Values joined(const std::vector<const Buffer*>& buffers) {
  Values all;
  for (const Buffer* buffer : buffers) {
    const Values values = buffer->values();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

TEST_CASE("each of attention's kernels gives the same bits in whatever order its threads and copies come") {
  const auto check = [](Operands& x) {
    const auto saved = reference::attention<double>(x.setting, x.q, x.k, x.v, x.dtype);
    const Buffer o(saved.o, x.dtype), lse(saved.lse, DType::f32);
    for (const char* kernel : kernels_for(x, false, true)) {
      INFO("kernel " << kernel);
      same_in_all_runs(
          [&](simt::Executor& executor) {
            const Forward out = forward(Simt{}, executor.stream(), x, kernel);
            return joined({&out.o, &out.lse});
          },
          order_runs());
    }
    for (const char* kernel : kernels_for(x, true, true)) {
      INFO("kernel " << kernel << " of the gradient");
      same_in_all_runs(
          [&](simt::Executor& executor) {
            const Backward out = backward(Simt{}, executor.stream(), x, o, lse, kernel);
            return joined({&out.dq, &out.dk, &out.dv});
          },
          order_runs());
    }
  };
  for_each_case(check, kMostRows, kOrderCases);
}

TEST_CASE("attention by wgmma refuses a longer segment than it holds") {
  Operands x({{209}, 1, 1, 64, true, true}, DType::bf16, Random(1));
  simt::Executor executor;
  CHECK_THROWS_WITH(forward(Simt{}, executor.stream(), x, "wgmma"),
                    contains("attention: kernel \"wgmma\" does bf16 heads of size 64"));
}

TEST_CASE("the fp32 gradient runs in one kernel where a block's shared memory holds the segment") {
  const auto launched = [](int32_t longest, int D, int64_t shared_kb) {
    Operands x({{longest, 1}, 1, 1, D, true, true}, DType::f32, Random(1));
    const auto saved = reference::attention<double>(x.setting, x.q, x.k, x.v, x.dtype);
    simt::Executor executor({.shared_limit = shared_kb * 1024, .check_accesses = false});
    backward(Simt{}, executor.stream(), x, Buffer(saved.o, x.dtype), Buffer(saved.lse, DType::f32));
    std::vector<std::string> names;
    for (const simt::KernelReport& report : executor.reports()) names.push_back(report.kernel);
    return names;
  };
  const std::vector<std::string> one{"attention_backward_fma_whole"}, two{"attention_dq", "attention_dkv"};
  CHECK(launched(256, 64, 227) == one);
  CHECK(launched(257, 64, 227) == two);
  CHECK(launched(208, 64, 163) == one);
  CHECK(launched(209, 64, 163) == two);
  CHECK(launched(112, 33, 99) == one);
  CHECK(launched(113, 33, 99) == two);
  CHECK(launched(256, 32, 163) == one);
  CHECK(launched(5, 65, 227) == two);
}
#endif

TEST_CASE("the formula of attention's gradients is the slope of attention") {
  for (Mask mask : {Mask::none, Mask::left, Mask::vlm}) {
    INFO("mask " << kMaskNames[static_cast<int>(mask)]);
    Random random(7);
    const AttentionSetting s = setting_of({{4, 7}, 4, 2, 4, true, true, mask}, random);
    const Values q = random.normal(s.R() * s.H * s.D, DType::f32).values();
    const Values k = random.normal(s.R() * s.G * s.D, DType::f32).values();
    const Values v = random.normal(s.R() * s.G * s.D, DType::f32).values();
    const Values d_o = random.normal(s.R() * s.H * s.D, DType::f32).values();
    const auto out = reference::attention<double>(s, q, k, v, DType::f32);
    const auto gradients = reference::attention_backward<double>(s, q, k, v, out.o, out.lse, d_o, DType::f32);
    const auto loss = [&](const Values& q, const Values& k, const Values& v) {
      return dot(reference::attention<double>(s, q, k, v, DType::f32).o, d_o);
    };
    check_slope(
        "dv", [&](const Values& x) { return loss(q, k, x); }, v, gradients.dv);
    // A row without keys has the gradient of equal scores, which differences of its constant output cannot show.
    if (mask == Mask::left) continue;
    check_slope(
        "dq", [&](const Values& x) { return loss(x, k, v); }, q, gradients.dq);
    check_slope(
        "dk", [&](const Values& x) { return loss(q, x, v); }, k, gradients.dk);
  }
}

// Runs both directions again and compares.
template <class Backend>
void check_same_bits(Backend backend, Stream stream, Operands& x, const Forward& out, const Backward& slope) {
  const Forward again = forward(backend, stream, x);
  const Backward slope_again = backward(backend, stream, x, out.o, out.lse);
  CHECK((again.o.same_bits(out.o) && again.lse.same_bits(out.lse)));
  CHECK(
      (slope_again.dq.same_bits(slope.dq) && slope_again.dk.same_bits(slope.dk) && slope_again.dv.same_bits(slope.dv)));
}

TEST_CASE("attention gives the same bits every time") {
  const auto check = [](Operands& x) {
    for_each_backend([&](auto backend, Stream stream) {
      const Forward out = forward(backend, stream, x);
      check_same_bits(backend, stream, x, out, backward(backend, stream, x, out.o, out.lse));
    });
  };
  for_each_case(check, kMostRowsTwice);
}

TEST_CASE("attention gives the same bits on one thread and on several") {
  for_each_case([](Operands& x) {
    for_each_backend([&](auto backend) {
      const Forward out = forward(backend, {}, x);
      const Backward slope = backward(backend, {}, x, out.o, out.lse);
      for (int threads : {1, 3}) with_threads(threads, [&] { check_same_bits(backend, {}, x, out, slope); });
    });
  });
}

#if !defined(NANOVLM_SIMT_INSTRUMENTED)  // of numbers alone
// PyTorch's tensors: [B, heads, T, D] there, rows of heads here.
Values rows_of(const Values& x, int64_t heads, int64_t T, int64_t D) {
  Values y(x.size());
  for (int64_t i = 0; i < int64_t(x.size()); ++i) {
    const int64_t d = i % D, t = i / D % T, h = i / D / T % heads, b = i / D / T / heads;
    y[((b * T + t) * heads + h) * D + d] = x[i];
  }
  return y;
}

TEST_CASE("attention agrees with PyTorch, which passes the same rule") {
  for (const auto& [operation, causal, cases] :
       {std::tuple{"attention_causal_gqa", true, 6}, {"attention_bidirectional", false, 4}}) {
    const OpFixture fixture(operation);
    for (int k = 0; k < cases; ++k) {
      CAPTURE(operation, k);
      const Shape q = fixture.shape(k, "in.q"), keys = fixture.shape(k, "in.k");
      const int64_t B = q[0], H = q[1], T = q[2], D = q[3], G = keys[1];
      Case c{std::vector<int32_t>(B, T), int(H), int(G), int(D), causal, false};
      Operands x(c, DType::f32, Random(1));
      const auto rows = [&](const char* name, int64_t heads) { return rows_of(fixture(k, name), heads, T, D); };
      x.q = rows("in.q", H), x.k = rows("in.k", G), x.v = rows("in.v", G), x.d_o = rows("upstream", H);
      const Values mask = fixture(k, "const.mask");
      x.setting.key_mask.assign(mask.begin(), mask.end()), x.key_mask = Buffer(mask, DType::u8);

      const auto exact = reference::attention<double>(x.setting, x.q, x.k, x.v, x.dtype);
      const auto plain = reference::attention<float>(x.setting, x.q, x.k, x.v, x.dtype);
      const auto slope =
          reference::attention_backward<double>(x.setting, x.q, x.k, x.v, exact.o, exact.lse, x.d_o, x.dtype);
      const auto plain_slope =
          reference::attention_backward<float>(x.setting, x.q, x.k, x.v, plain.o, plain.lse, x.d_o, x.dtype);
      const auto check_all = [&](const Values& o, const Values& dq, const Values& dk, const Values& dv) {
        check_close("o", o, exact.o, plain.o);
        check_close("dq", dq, slope.dq, plain_slope.dq, slope.dq_terms);
        check_close("dk", dk, slope.dk, plain_slope.dk, slope.dk_terms);
        check_close("dv", dv, slope.dv, plain_slope.dv);
      };
      // For rows left without keys PyTorch's gradient is not its output's slope: it recomputes their probabilities from
      // a log-sum-exp near -3e38, in which log(number of keys) is lost, so that each is 1.
      const bool comparable = operation != std::string("attention_causal_gqa") || (k != 3 && k != 4);
      if (comparable) check_all(rows("out", H), rows("grad.q", H), rows("grad.k", G), rows("grad.v", G));
      if (!comparable) check_close("PyTorch's o", rows("out", H), exact.o, plain.o);
      for_each_backend([&](auto backend, Stream stream) {
        const Forward out = forward(backend, stream, x);
        const Backward got = backward(backend, stream, x, out.o, out.lse);
        check_all(out.o.values(), gathered(got.dq, H * D, x.q_stride), gathered(got.dk, G * D, x.k_stride),
                  gathered(got.dv, G * D, x.v_stride));
      });
    }
  }
}

#endif

struct DecodeCase {
  std::vector<int32_t> lengths;
  int64_t capacity;
  int H, G, D;
};

// Every head size that the kernel is made for has warps with three tiles.
const DecodeCase kDecodeCases[] = {
    {{1}, 1, 1, 1, 8},           {{3, 70, 1}, 80, 6, 2, 64}, {{65}, 65, 3, 1, 128},   {{257}, 260, 1, 1, 64},
    {{530, 512}, 540, 2, 2, 32}, {{33, 31}, 40, 18, 1, 3},   {{129}, 130, 1, 1, 128},
};

TEST_CASE("attention_decode is as exact as the plain formula") {
  for (const DecodeCase& c : kDecodeCases)
    for (DType dtype : kFloatDTypes) {
      INFO("lengths " << Catch::Detail::stringify(c.lengths) << ", H " << c.H << ", G " << c.G << ", D " << c.D << ", "
                      << name_of(dtype));
      Random random(c.capacity);
      const int64_t B = c.lengths.size(), row = c.G * c.D;
      Buffer q = random.normal(B * c.H * c.D, dtype), k = random.normal(B * c.capacity * row, dtype);
      Buffer v = random.normal(B * c.capacity * row, dtype);
      Buffer lengths(Values(c.lengths.begin(), c.lengths.end()), DType::i32);
      const float scale = 1 / std::sqrt(float(c.D));

      Values exact, plain;
      for (int64_t b = 0; b < B; ++b) {
        // The last of `length` queries is the new one; the others' results are not looked at.
        const AttentionSetting s{{0, c.lengths[b]}, c.H, c.G, c.D, true, scale, {}, {}, {}, {}};
        const auto slice = [&](const Values& x) {
          return Values(&x[b * c.capacity * row], &x[b * c.capacity * row] + c.lengths[b] * row);
        };
        Values queries(c.lengths[b] * c.H * c.D);
        const Values all = q.values();
        std::copy_n(&all[b * c.H * c.D], c.H * c.D, queries.end() - c.H * c.D);
        const auto append = [&](Values& to, const Values& o) { to.insert(to.end(), o.end() - c.H * c.D, o.end()); };
        append(exact, reference::attention<double>(s, queries, slice(k.values()), slice(v.values()), dtype).o);
        append(plain, reference::attention<float>(s, queries, slice(k.values()), slice(v.values()), dtype).o);
      }

      const auto decode = [&](auto backend, Stream stream) {
        Buffer o(B * c.H * c.D, dtype);
        kernels::attention_decode(
            backend, kernels::AttentionDecode{q, k, v, lengths, o, B, c.capacity, c.H, c.G, c.D, scale, dtype}, stream);
        return o;
      };
      for_each_backend(
          [&](auto backend, Stream stream) { check_close("o", decode(backend, stream).values(), exact, plain); });
      for_each_backend([&](auto backend) {
        const Buffer o = decode(backend, {});
        for (int threads : {1, 3}) with_threads(threads, [&] { CHECK(decode(backend, {}).same_bits(o)); });
      });
    }
}

}  // namespace
}  // namespace nanovlm::testing
