// What bench/attention compares our kernels with, on the operands of one of its instances: steps of its own for
// scores, softmax and sums, or a library.
#pragma once
#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "bench/common/attention_operands.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/matmul/matmul.h"
#include "kernels/naive/naive.h"
#include "kernels/rope/rope.h"
#include "kernels/softmax/softmax.h"

namespace nanovlm::bench {

// RoPE as steps of its own, before and after what has none.
class Rotation {
 public:
  explicit Rotation(const Operands& of)
      : q(of.s.rope ? empty_like(of.q) : of.q), k(of.s.rope ? empty_like(of.k) : of.k), x_(of) {
    std::vector<int32_t> positions;
    for (int64_t row = 0; row < of.s.rows(); ++row) positions.push_back(static_cast<int32_t>(row % of.s.T));
    positions_ = from_host(positions, {of.s.rows()}, of.q.device());
  }
  // The operands' q and k into ours.
  void forth() const { turn(x_.q, q, x_.s.H, false), turn(x_.k, k, x_.s.G, false); }
  // The operands' dq and dk, where they lie.
  void back() const { turn(x_.dq, x_.dq, x_.s.H, true), turn(x_.dk, x_.dk, x_.s.G, true); }

  const Tensor q, k;  // rotated; the operands' own where nothing is

 private:
  void turn(const Tensor& from, const Tensor& to, int heads, bool back) const {
    if (!x_.s.rope) return;
    on(from.device(), "rope", [&](auto backend, Stream stream) {
      kernels::rope(backend,
                    {from.data(), to.data(), x_.cos.f32(), x_.sin.f32(), positions_.i32(), x_.s.rows(), heads, x_.s.D,
                     back, x_.s.dtype},
                    stream);
    });
  }

  const Operands& x_;
  Tensor positions_;
};

// The unfused form on the host: rotate, then for every head gather, multiply, softmax, multiply, scatter.
class Unfused {
 public:
  explicit Unfused(const Operands& of) : x_(of), s_(of.s), rotation_(of) {
    const Device& device = of.q.device();
    for (Tensor* head : {&one_q_, &one_k_, &one_v_, &one_o_}) *head = empty({s_.T, s_.D}, s_.dtype, device);
    scores_ = empty({s_.T, s_.T}, DType::f32, device), weights_ = empty({s_.T, s_.T}, s_.dtype, device);
  }

  void operator()() const {
    rotation_.forth();
    for (int64_t b = 0; b < s_.B; ++b)
      for (int h = 0; h < s_.H; ++h) {
        const int g = h / (s_.H / s_.G);
        move<true>(rotation_.q, one_q_, b, h, s_.H), move<true>(rotation_.k, one_k_, b, g, s_.G);
        move<true>(x_.v, one_v_, b, g, s_.G);
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
    on(scores_.device(), "softmax", [&](auto backend, Stream stream) {
      kernels::softmax(
          backend, {scores_.data(), weights_.data(), s_.T, s_.T, s_.scale(), s_.causal, DType::f32, s_.dtype}, stream);
    });
  }

  const Operands& x_;
  Problem s_;
  Rotation rotation_;
  Tensor one_q_, one_k_, one_v_, one_o_, scores_, weights_;
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
      : x_(of), s_(of.s), room_(std::move(room)), rotation_(of) {
    room_->make(of, backward);
  }

  void forward() const {
    rotation_.forth();
    on(x_.q.device(), "naive_attention", [&](auto backend, Stream stream) {
      kernels::naive_attention(backend,
                               {{shape(), rotation_.q.data(), rotation_.k.data(), x_.v.data(), s_.H * s_.D, s_.G * s_.D,
                                 s_.G * s_.D, x_.o.data(), x_.lse.f32()},
                                room_->p.f32()},
                               stream);
    });
  }
  void backward() const {
    rotation_.forth();
    on(x_.q.device(), "naive_attention_backward", [&](auto backend, Stream stream) {
      kernels::naive_attention_backward(
          backend,
          {{shape(), rotation_.q.data(), rotation_.k.data(), x_.v.data(), s_.H * s_.D, s_.G * s_.D, s_.G * s_.D,
            x_.o.data(), x_.d_o.data(), x_.lse.f32(), x_.dq.data(), x_.dk.data(), x_.dv.data()},
           room_->delta.f32(),
           room_->p.f32(),
           room_->ds.f32()},
          stream);
    });
    rotation_.back();
  }

 private:
  kernels::AttentionShape shape() const {
    kernels::AttentionShape shape = x_.shape();
    shape.cos = shape.sin = nullptr;
    return shape;
  }

  const Operands& x_;
  Problem s_;
  std::shared_ptr<NaiveRoom> room_;
  Rotation rotation_;
};

// A library on an instance's operands, between rotations by our own kernel, since none has RoPE. The first call makes
// room for what lies between steps, so that machines and builds without the library are left alone where it is not
// asked for, and clears what the library is to write.
template <class Library>
class Peer {
 public:
  Peer(const Operands& of, std::shared_ptr<Library> library) : x_(of), library_(std::move(library)) {}

  void forward() {
    if (!rotation_) prepare({x_.o});
    rotation_->forth();
    library_->forward(rotation_->q, rotation_->k, x_.v, x_.o, kept_);
  }
  // After its own forward for what that keeps, once.
  void backward() {
    if (!rotation_) {
      prepare({x_.dq, x_.dk, x_.dv});
      rotation_->forth();
      library_->forward(rotation_->q, rotation_->k, x_.v, empty_like(x_.o), kept_);
    }
    rotation_->forth();
    library_->backward(rotation_->q, rotation_->k, x_.v, x_.o, x_.d_o, kept_, x_.dq, x_.dk, x_.dv);
    rotation_->back();
  }

 private:
  void prepare(const std::vector<Tensor>& results) {
    rotation_.emplace(x_);
    kept_ = library_->kept();
    for (const Tensor& result : results)
      on(result.device(), "fill", [&](auto backend, Stream stream) {
        kernels::fill(backend, {result.data(), result.numel(), 0.0f, x_.s.dtype}, stream);
      });
  }

  const Operands& x_;
  std::shared_ptr<Library> library_;
  std::optional<Rotation> rotation_;
  Tensor kept_;
};

}  // namespace nanovlm::bench
