// bench/patch_embedding [--dir fwd,bwd,dimages] ...
//
// Pictures of 224 x 224 in patches of 16 to 768 channels, with bias and position; backward the gradients of weight,
// bias and position, as the model asks for them. Least bytes: images, weight, position and y once; backward images, dy,
// position's gradient and dweight, which is added to. dimages: the pixels' gradient, of pictures with a margin that
// fills no patch; no training step asks for it. naive: a thread an entry, from the pixels where they lie.
#include "kernels/patch_embedding/patch_embedding.h"

#include <memory>

#include "bench/common/kernel_bench.h"
#include "kernels/naive/naive.h"
#include "tests/support/reference.h"

using namespace nanovlm;
using namespace nanovlm::bench;
namespace reference = nanovlm::testing::reference;

namespace {

struct Problem {
  int64_t B, C;
  int S, p;
  DType dtype;
  std::string dir;
  int64_t P() const { return int64_t{S / p} * (S / p); }
  int64_t K() const { return int64_t{3} * p * p; }
  double flops() const { return 2.0 * static_cast<double>(B * P() * C * K()); }
  double image_bytes() const { return 12.0 * static_cast<double>(B * S * S); }
  double row_bytes() const { return 4.0 * static_cast<double>(B * P() * C); }
};

struct Operands {
  Problem s;
  Tensor images, weight, bias, position, y, dy, dweight, dbias, dposition, dimages, patches, rounded;

  Operands(const Problem& s, const Device& device, uint64_t seed) : s(s) {
    Random random(seed);
    const auto numbers = [&](Shape shape) { return normal(std::move(shape), DType::f32, random, device); };
    images = numbers({s.B, 3, s.S, s.S}), bias = numbers({s.C}), position = numbers({s.P(), s.C});
    dy = numbers({s.B * s.P(), s.C}), weight = normal({s.C, s.K()}, s.dtype, random, device);
    y = empty_like(dy), dweight = zeros({s.C, s.K()}, DType::f32, device);
    dbias = zeros_like(bias), dposition = zeros_like(position);
    if (s.dir == "dimages") dimages = numbers(images.shape());  // of which nothing may be left
    patches = empty({s.B * s.P(), s.K()}, s.dtype, device), rounded = empty({s.B * s.P(), s.C}, s.dtype, device);
  }
  void run(bool naive) const {
    const kernels::PatchEmbedding a{
        images.f32(), weight.data(), bias.f32(), position.f32(), y.f32(), patches.data(), s.B, s.C, s.S, s.p, s.dtype};
    kernels::PatchEmbeddingBackward back{
        images.f32(),   weight.data(), dy.f32(), dweight.f32(), dbias.f32(), dposition.f32(), nullptr, patches.data(),
        rounded.data(), s.B,           s.C,      s.S,           s.p,         s.dtype};
    if (dimages.defined()) back.dweight = back.dbias = back.dposition = nullptr, back.dimages = dimages.f32();
    on(y.device(), "patch_embedding", [&](auto backend, Stream stream) {
      if (s.dir == "fwd")
        naive ? kernels::naive_patch_embedding(backend, a, stream) : kernels::patch_embedding(backend, a, stream);
      else
        naive ? kernels::naive_patch_embedding_backward(backend, back, stream)
              : kernels::patch_embedding_backward(backend, back, stream);
    });
  }
  std::vector<Outcome> outcomes() const { return s.dir == "fwd" ? forward_outcomes() : backward_outcomes(); }
  std::vector<Outcome> forward_outcomes() const {
    const auto of = [&]<class Real>(Type<Real>) {
      return reference::patch_embedding<Real>(values_of(images), values_of(weight), values_of(bias),
                                              values_of(position), s.B, s.S, s.p, s.dtype);
    };
    return {{"y", values_of(y), of(Type<double>{}), of(Type<float>{})}};
  }
  std::vector<Outcome> backward_outcomes() const {
    const auto of = [&]<class Real>(Type<Real>) {
      return reference::patch_embedding_backward<Real>(values_of(images), values_of(weight), values_of(dy), s.B, s.C,
                                                       s.S, s.p, s.dtype);
    };
    auto exact = of(Type<double>{}), rounded = of(Type<float>{});
    if (dimages.defined())
      return {{"dimages", values_of(dimages), std::move(exact.dimages), std::move(rounded.dimages)}};
    return {{"dweight", values_of(dweight), std::move(exact.dweight), std::move(rounded.dweight)},
            {"dbias", values_of(dbias), std::move(exact.dbias), std::move(rounded.dbias)},
            {"dposition", values_of(dposition), std::move(exact.dposition), std::move(rounded.dposition)}};
  }
};

Instance instance_of(bool with_naive, const Problem& s, const Device& device, uint64_t seed) {
  const auto x = std::make_shared<Operands>(s, device, seed);
  Instance instance{[=] { x->run(false); }, [=] { return x->outcomes(); }, {}};
  if (with_naive && s.dir != "dimages") {
    const auto other = std::make_shared<Operands>(s, device, seed);  // gradients are added to
    instance.baselines.push_back(
        {"naive", [=] { other->run(true); }, false, [=] { return other->outcomes(); }, {"kernels/naive/naive.cu"}});
  }
  return instance;
}

double least_bytes(const Problem& s) {
  const double weight = static_cast<double>(s.C * s.K()), size = static_cast<double>(size_of(s.dtype));
  const double position = 4 * static_cast<double>(s.P() * s.C);
  const double common = s.image_bytes() + s.row_bytes();
  if (s.dir == "fwd") return common + position + weight * size;
  return s.dir == "bwd" ? common + position + weight * 8 : common + weight * size;
}

Case case_of(const std::string& dir, DType dtype, const Request& request) {
  // The executor takes seconds a picture: there smaller ones and a sixth of the channels stand for all.
  const bool simt = request.device.kind() == DeviceKind::simt;
  const int margin = dir == "dimages" ? 8 : 0;
  const Problem s{request.batch_or(64, 4, 4), simt ? 128 : 768, (simt ? 112 : 224) + margin, 16, dtype, dir};
  Case c{"patch_embedding", dir, dtype, {{"batch", s.B}, {"channels", s.C}}, s.flops(), least_bytes(s)};
  const double pictures =
      256.0 / static_cast<double>(s.B) * (static_cast<double>(14 * 14) / static_cast<double>(s.P()));
  c.full = pictures * (768.0 / static_cast<double>(s.C));
  c.sources = {"kernels/patch_embedding/patch_embedding.cu", "kernels/matmul/matmul.cu"};
  if (dir == "bwd")
    c.excesses = {
        {"patch_embedding", "bytes", 1.2, "the weight's gradient reads dy after the position's, as bf16 once rounded"}};
  c.make = [=, device = request.device, naive = request.impls.wanted("naive")](uint64_t seed) {
    return instance_of(naive, s, device, seed);
  };
  return c;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> directions = {"fwd", "bwd", "dimages"};
  KernelBench bench("patch_embedding", directions);
  return bench.run(argc, argv, [&](const Request& request) {
    std::vector<Case> cases;
    for (const DType dtype : request.dtypes)
      for (const std::string& dir : directions) cases.push_back(case_of(dir, dtype, request));
    return cases;
  });
}
