#include "kernels/patch_embedding/patch_embedding.h"

#include <cmath>
#include <string_view>

#include "kernels/pixel_shuffle/pixel_shuffle.h"
#include "kernels/pixel_shuffle/projector.h"

#include "engine/ops.h"
#include "engine/ops/checks.h"

namespace nanovlm {

Tensor patch_embedding(const Tensor& images, const Tensor& weight, const Tensor& bias, const Tensor& position,
                       DType dtype) {
  check(images.rank() == 4 && images.size(1) == 3 && images.size(2) == images.size(3), "patch_embedding: images is ",
        images.shape(), ", but must be [B, 3, S, S]");
  check(weight.rank() == 4 && weight.size(0) > 0 && weight.size(1) == 3 && weight.size(2) > 0 &&
            weight.size(2) == weight.size(3),
        "patch_embedding: weight is ", weight.shape(), ", but must be [C, 3, p, p], C and p above 0");
  const int64_t B = images.size(0), C = weight.size(0), K = weight.numel() / C;
  const int S = static_cast<int>(images.size(2)), p = static_cast<int>(weight.size(2));
  const int64_t P = int64_t{S / p} * (S / p);
  check(P > 0, "patch_embedding: pictures of ", S, " pixels for patches of ", p);
  check(position.shape() == Shape{1, P, C}, "patch_embedding: position is ", position.shape(), ", but must be [1, ", P,
        ", ", C, "]");
  check(bias.shape() == Shape{C}, "patch_embedding: bias is ", bias.shape(), ", but weight is ", weight.shape());
  check_contiguous("patch_embedding", {{"images", images}, {"weight", weight}, {"bias", bias}, {"position", position}});

  const Tensor::Recipe saved = images.recipe();
  Tensor y = empty({B * P, C}, DType::f32, images.device());
  const Tensor patches = empty({B * P, K}, dtype, images.device());
  on(images.device(), "patch_embedding", [&](auto backend, Stream stream) {
    kernels::patch_embedding(backend,
                             {images.f32(), cast(weight.detach(), dtype).data(), bias.f32(), position.f32(), y.f32(),
                              patches.data(), B, C, S, p, dtype},
                             stream);
  });
  return record(
      "patch_embedding", y, {images, weight, bias, position}, [=](const Tensor& dy, const Needs& needs) -> Gradients {
        const Tensor kept = saved();
        const Device& device = kept.device();
        const Tensor patches = empty({B * P, K}, dtype, device), rounded = empty({B * P, C}, dtype, device);
        const Tensor dimages = needs[0] ? empty_like(kept) : Tensor();
        const MemoryScope scope(device, MemoryClass::gradient);
        const Tensor dweight = needs[1] ? zeros_like(weight) : Tensor(), dbias = needs[2] ? zeros_like(bias) : Tensor(),
                     dposition = needs[3] ? zeros_like(position) : Tensor();
        const auto f32 = [](const Tensor& x) { return x.defined() ? x.f32() : nullptr; };
        on(device, "patch_embedding_backward", [&](auto backend, Stream stream) {
          kernels::patch_embedding_backward(
              backend,
              {kept.f32(), cast(weight.detach(), dtype).data(), dy.f32(), f32(dweight), f32(dbias), f32(dposition),
               f32(dimages), patches.data(), rounded.data(), B, C, S, p, dtype},
              stream);
        });
        return {dimages, dweight, dbias, dposition};
      });
}

namespace {
// n of the n * n patches that a picture has among the rows of x.
int side_of(const char* name, const Tensor& x, int64_t B, int f) {
  check(x.rank() == 2 && B > 0 && x.size(0) % B == 0, name, ": x is ", x.shape(), " for a batch of ", B);
  const int64_t P = x.size(0) / B;
  const int n = static_cast<int>(std::lround(std::sqrt(static_cast<double>(P))));
  check(int64_t{n} * n == P, name, ": ", P, " patches a picture, but must be a square number");
  check(f > 0 && n % f == 0, name, ": a grid of ", n, " x ", n, " patches, but the factor is ", f);
  check_contiguous(name, {{"x", x}});
  return n;
}

Tensor shuffled(const Tensor& x, int64_t B, int64_t C, int n, int f, bool inverse) {
  const int64_t tokens = B * n * n / (f * f);
  Tensor y = empty(inverse ? Shape{B * n * n, C} : Shape{tokens, C * f * f}, x.dtype(), x.device());
  on(x.device(), "pixel_shuffle", [&](auto backend, Stream stream) {
    kernels::pixel_shuffle(backend, {x.data(), y.data(), B, C, n, f, inverse, x.dtype()}, stream);
  });
  return y;
}

// Calls f with a backend that has the kernels of kernels/gemm.
template <class F>
void on_gpu(const Device& device, const char* name, const F& f) {
  on(device, name, [&](auto backend, Stream stream) {
    if constexpr (kernels::kHasGemm<decltype(backend)>) f(backend, stream);
  });
}

const bf16* bf16s(const Tensor& x) { return static_cast<const bf16*>(x.data()); }

Tensor fused_projector(const Tensor& x, int64_t B, int f, const Tensor& weight) {
  const int n = side_of("projector", x, B, f);
  const int64_t C = x.size(1), N = weight.size(0);
  const Tensor rounded = cast(x.detach(), DType::bf16), kept = cast(weight.detach(), DType::bf16);
  Tensor y = empty({B * (n / f) * (n / f), N}, DType::bf16, x.device());
  on_gpu(x.device(), "projector", [&](auto backend, Stream stream) {
    kernels::projector(backend, {bf16s(rounded), bf16s(kept), static_cast<bf16*>(y.data()), B, C, N, n, f}, stream);
  });
  const Tensor::Recipe saved = x.dtype() == DType::bf16 ? x.recipe() : rounded.recipe();
  const DType x_dtype = x.dtype();
  return record("projector", y, {x, weight}, [=](const Tensor& dy, const Needs& needs) -> Gradients {
    const Tensor x_again = saved();
    const Device& device = dy.device();
    const Tensor dx = needs[0] ? empty(x_again.shape(), x_dtype, device) : Tensor();
    const MemoryScope scope(device, MemoryClass::gradient);
    Tensor dweight = needs[1] ? gradient_so_far(weight) : Tensor();
    const bool add = dweight.defined();
    if (needs[1] && !add) dweight = empty(weight.shape(), DType::f32, device);
    on_gpu(device, "projector_backward", [&](auto backend, Stream stream) {
      kernels::projector_backward(backend,
                                  {bf16s(x_again), bf16s(kept), bf16s(dy), dx.defined() ? dx.data() : nullptr,
                                   dweight.defined() ? dweight.f32() : nullptr, add, B, C, N, n, f, x_dtype},
                                  stream);
    });
    return {dx, dweight};
  });
}
}  // namespace

Tensor pixel_shuffle(const Tensor& x, int64_t B, int f) {
  const int n = side_of("pixel_shuffle", x, B, f);
  const int64_t C = x.size(1);
  return record("pixel_shuffle", shuffled(x, B, C, n, f, false), {x},
                [=](const Tensor& dy, const Needs&) -> Gradients { return {shuffled(dy, B, C, n, f, true)}; });
}

Tensor projector(const Tensor& x, int64_t B, int f, const Tensor& weight, DType dtype) {
  const char* chosen = x.device().context().kernels.of("projector");
  if (!chosen || std::string_view(chosen) == "separate") return linear(pixel_shuffle(x, B, f), weight, {}, dtype);
  check(dtype == DType::bf16, "projector: the kernel \"fused\" takes bf16, but the run computes in ", dtype);
  check(weight.rank() == 2 && weight.size(1) == x.size(1) * f * f, "projector: x is ", x.shape(), " and the factor ", f,
        ", but weight is ", weight.shape());
  check_contiguous("projector", {{"weight", weight}});
  return fused_projector(x, B, f, weight);
}

}  // namespace nanovlm
