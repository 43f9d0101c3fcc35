// What bench/attention measures on: a problem's operands, how our kernels are called on them, and what the formula
// makes of them.
#pragma once
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "bench/common/attention_problem.h"
#include "bench/common/kernel_bench.h"
#include "kernels/attention/attention.h"
#include "kernels/parallel.h"
#include "tests/support/attention_reference.h"

namespace nanovlm::bench {

namespace reference = testing::reference;

struct Operands {
  Problem s;
  Tensor bounds, key_mask, cos, sin, q, k, v, o, lse, d_o, dq, dk, dv;

  Operands(const Problem& s, const Device& device, uint64_t seed) : s(s) {
    std::vector<int32_t> ends(1);
    for (const int64_t length : s.lengths) ends.push_back(ends.back() + static_cast<int32_t>(length));
    bounds = from_host(ends, {s.B + 1}, device);
    Random random(seed);
    const auto rows = [&](int heads) { return normal({s.rows(), heads * s.D}, s.dtype, random, device); };
    q = rows(s.H), k = rows(s.G), v = rows(s.G), d_o = rows(s.H);
    o = empty_like(q), dq = empty_like(q), dk = empty_like(k), dv = empty_like(v);
    lse = empty({s.rows(), s.H}, DType::f32, device);
    if (s.rope) make_angles(device);
    if (s.mask == Mask::leftpad) make_mask(device);
  }

  void make_angles(const Device& device) {
    std::vector<float> c, n;
    for (int64_t t = 0; t < s.T; ++t)
      for (int d = 0; d < s.D / 2; ++d) {
        const double angle = static_cast<double>(t) * std::pow(10000.0, -2.0 * d / s.D);
        c.push_back(static_cast<float>(std::cos(angle))), n.push_back(static_cast<float>(std::sin(angle)));
      }
    cos = from_host(c, {s.T, s.D / 2}, device), sin = from_host(n, {s.T, s.D / 2}, device);
  }
  void make_mask(const Device& device) {
    std::vector<uint8_t> mask;
    for (int64_t row = 0; row < s.rows(); ++row) mask.push_back(row / s.T % 2 == 0 || row % s.T >= s.T / 3);
    key_mask = from_host(mask, {s.rows()}, device);
  }

  kernels::AttentionShape shape() const {
    return {s.rows(),
            s.B,
            bounds.i32(),
            s.longest(),
            key_mask.defined() ? key_mask.u8() : nullptr,
            s.H,
            s.G,
            s.D,
            s.causal,
            s.scale(),
            s.rope ? cos.f32() : nullptr,
            s.rope ? sin.f32() : nullptr,
            nullptr,
            s.dtype};
  }
  // Of sequence b alone.
  reference::AttentionSetting setting(int64_t b) const {
    reference::AttentionSetting setting{{0, static_cast<int32_t>(s.lengths[static_cast<size_t>(b)])},
                                        s.H,
                                        s.G,
                                        s.D,
                                        s.causal,
                                        s.scale(),
                                        {},
                                        {},
                                        {},
                                        {}};
    if (s.rope) setting.cos = values_of(cos), setting.sin = values_of(sin);
    if (s.mask == Mask::leftpad)
      for (int64_t t = 0; t < s.T; ++t) setting.key_mask.push_back(b % 2 == 0 || t >= s.T / 3);
    return setting;
  }
  // Calls f(b) for every sequence, on all threads: the formula takes far longer than what it checks.
  template <class F>
  void for_each_sequence(const F& f) const {
    kernels::parallel_for(s.B, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) f(b);
    });
  }
  Values part(const Values& all, int64_t b) const {
    const std::ptrdiff_t width = static_cast<std::ptrdiff_t>(all.size()) / s.rows();
    return Values(all.begin() + s.first_row(b) * width, all.begin() + s.first_row(b + 1) * width);
  }
  void put(const Values& part, int64_t b, Values& all) const {
    const std::ptrdiff_t width = static_cast<std::ptrdiff_t>(all.size()) / s.rows();
    std::copy(part.begin(), part.end(), all.begin() + s.first_row(b) * width);
  }

  const char* chosen(const char* operation) const { return q.device().context().kernels.of(operation); }
  void forward() const {
    on(q.device(), "attention", [&](auto backend, Stream stream) {
      kernels::attention(backend,
                         {shape(), q.data(), k.data(), v.data(), s.H * s.D, s.G * s.D, s.G * s.D, o.data(), lse.f32(),
                          chosen("attention")},
                         stream);
    });
  }
  void backward() const {
    on(q.device(), "attention_backward", [&](auto backend, Stream stream) {
      kernels::attention_backward(
          backend,
          {shape(), q.data(), k.data(), v.data(), s.H * s.D, s.G * s.D, s.G * s.D, o.data(), d_o.data(), lse.f32(),
           dq.data(), dk.data(), dv.data(), chosen("attention_backward")},
          stream);
    });
  }

  std::vector<Outcome> forward_outcomes() const {
    const Values x = values_of(q), y = values_of(k), z = values_of(v);
    Outcome found{"o", values_of(o), Values(x.size()), Values(x.size())};
    for_each_sequence([&](int64_t b) {
      const auto of = [&]<class Real>(Type<Real>) {
        return reference::attention<Real>(setting(b), part(x, b), part(y, b), part(z, b), s.dtype).o;
      };
      put(of(Type<double>{}), b, found.exact), put(of(Type<float>{}), b, found.rounded);
    });
    return {found};
  }
  std::vector<Outcome> backward_outcomes() const {
    const Values in[] = {values_of(q), values_of(k), values_of(v), values_of(o), values_of(lse), values_of(d_o)};
    std::vector<Outcome> found;
    for (const auto& [name, x] : {std::pair{"dq", dq}, {"dk", dk}, {"dv", dv}}) {
      const size_t n = static_cast<size_t>(x.numel());
      found.push_back({name, values_of(x), Values(n), Values(n)});
    }
    std::vector<double> dq_terms(static_cast<size_t>(s.B)), dk_terms(dq_terms);
    for_each_sequence([&](int64_t b) {
      const auto of = [&]<class Real>(Type<Real>) {
        return reference::attention_backward<Real>(setting(b), part(in[0], b), part(in[1], b), part(in[2], b),
                                                   part(in[3], b), part(in[4], b), part(in[5], b), s.dtype);
      };
      const auto exact = of(Type<double>{}), rounded = of(Type<float>{});
      put(exact.dq, b, found[0].exact), put(exact.dk, b, found[1].exact), put(exact.dv, b, found[2].exact);
      put(rounded.dq, b, found[0].rounded), put(rounded.dk, b, found[1].rounded), put(rounded.dv, b, found[2].rounded);
      dq_terms[static_cast<size_t>(b)] = exact.dq_terms, dk_terms[static_cast<size_t>(b)] = exact.dk_terms;
    });
    found[0].terms = *std::max_element(dq_terms.begin(), dq_terms.end());
    found[1].terms = *std::max_element(dk_terms.begin(), dk_terms.end());
    return found;
  }
};

// One token of each of B sequences, whose cache holds T rows.
struct DecodeOperands {
  Problem s;
  Tensor q, k, v, o, lengths;

  DecodeOperands(const Problem& s, const Device& device, uint64_t seed) : s(s) {
    Random random(seed);
    q = normal({s.B, s.H * s.D}, s.dtype, random, device), o = empty_like(q);
    k = normal({s.rows(), s.G * s.D}, s.dtype, random, device);
    v = normal({s.rows(), s.G * s.D}, s.dtype, random, device);
    lengths = from_host(std::vector<int32_t>(static_cast<size_t>(s.B), static_cast<int32_t>(s.T)), {s.B}, device);
  }
  void run() const {
    on(q.device(), "attention_decode", [&](auto backend, Stream stream) {
      kernels::attention_decode(
          backend, {q.data(), k.data(), v.data(), lengths.i32(), o.data(), s.B, s.T, s.H, s.G, s.D, s.scale(), s.dtype},
          stream);
    });
  }
  // The last query of a sequence under a causal mask is what decoding computes; the others are zeros here.
  std::vector<Outcome> outcomes() const {
    const Values new_q = values_of(q), x = values_of(k), y = values_of(v);
    const size_t width = static_cast<size_t>(s.H * s.D);
    Values all(static_cast<size_t>(s.rows()) * width);
    const auto last = [&](int64_t b) { return static_cast<std::ptrdiff_t>(width) * ((b + 1) * s.T - 1); };
    for (int64_t b = 0; b < s.B; ++b)
      std::copy_n(new_q.begin() + b * static_cast<std::ptrdiff_t>(width), width, all.begin() + last(b));
    std::vector<int32_t> at;
    for (int64_t b = 0; b <= s.B; ++b) at.push_back(static_cast<int32_t>(b * s.T));
    const reference::AttentionSetting setting{at, s.H, s.G, s.D, true, s.scale(), {}, {}, {}, {}};
    const auto of = [&](const reference::AttentionResult& result) {
      Values rows;
      for (int64_t b = 0; b < s.B; ++b)
        rows.insert(rows.end(), result.o.begin() + last(b),
                    result.o.begin() + last(b) + static_cast<std::ptrdiff_t>(width));
      return rows;
    };
    return {{"o", values_of(o), of(reference::attention<double>(setting, all, x, y, s.dtype)),
             of(reference::attention<float>(setting, all, x, y, s.dtype))}};
  }
};

}  // namespace nanovlm::bench
