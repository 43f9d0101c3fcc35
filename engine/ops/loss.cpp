#include "kernels/cross_entropy/head_cross_entropy.h"

#include <algorithm>

#include "kernels/elementwise/elementwise.h"
#include "kernels/matmul/matmul.h"

#include "engine/ops.h"
#include "engine/ops/checks.h"

namespace nanovlm {
namespace {

// Of the logits, or their gradient, that are held at a time: large enough for an efficient product, small beside the
// model.
constexpr int64_t kLogitBytes = int64_t{96} << 20;

// y * (*factor), in place
void scale_by(const Tensor& y, const Tensor& factor) {
  on(y.device(), "scale", [&](auto backend, Stream stream) {
    kernels::scale(backend, {y.data(), y.data(), y.numel(), 1.0f, factor.f32(), y.dtype()}, stream);
  });
}

Tensor empty_gradient(const Tensor& weight) {
  const MemoryScope scope(weight.device(), MemoryClass::gradient);
  return empty(weight.shape(), DType::f32, weight.device());
}

}  // namespace

Tensor linear_cross_entropy(const Tensor& h, const Tensor& weight, const std::vector<int32_t>& targets, DType dtype) {
  const int64_t V = weight.size(0);
  for (const int32_t target : targets)
    check(target >= 0 && target < V, "linear_cross_entropy: target ", target, ", but the vocabulary has ", V);
  return linear_cross_entropy(h, weight, row_numbers(targets, h.device()), dtype);
}

Tensor linear_cross_entropy(const Tensor& h, const Tensor& weight, const Tensor& targets, DType dtype) {
  const int64_t R = targets.numel();
  check(R > 0, "linear_cross_entropy: no row has a label");
  check(h.rank() == 2 && h.size(0) == R && weight.rank() == 2 && h.size(1) == weight.size(1),
        "linear_cross_entropy: h is ", h.shape(), ", weight is ", weight.shape(), ", with ", R, " targets");
  check_contiguous("linear_cross_entropy", {{"h", h}, {"weight", weight}, {"targets", targets}});
  const int64_t C = h.size(1), V = weight.size(0);
  const Device device = h.device();
  const bool training = device.context().record_gradients && (h.requires_grad() || weight.requires_grad());
  const bool head_learns = training && weight.requires_grad();

  const Tensor rounded = cast(h.detach(), dtype);
  Tensor w = cast(weight.detach(), dtype);
  const Tensor row_loss = empty({R}, DType::f32, device);
  const bool stored = kernels::head_stores_logits(device.kind() != DeviceKind::cpu, dtype);
  const int64_t row_bytes = V * size_of(stored ? DType::f32 : dtype);
  const int64_t chunk = stored || training ? std::clamp<int64_t>(kLogitBytes / row_bytes, 1, R) : R;
  Tensor logits = stored ? empty({chunk, V}, DType::f32, device) : Tensor();
  const Tensor dlogits = !training ? Tensor() : dtype == DType::f32 ? logits : empty({chunk, V}, dtype, device);
  Tensor dh, dweight;
  if (training) dh = empty(h.shape(), dtype == DType::f32 ? DType::f32 : h.dtype(), device);

  for (int64_t begin = 0; begin < R; begin += chunk) {
    const int64_t rows = std::min(chunk, R - begin);
    const Tensor part = rounded.slice(0, begin, begin + rows);
    on(device, "linear_cross_entropy", [&](auto backend, Stream stream) {
      kernels::head_cross_entropy(backend,
                                  {part.data(), w.data(), targets.i32() + begin, row_loss.f32() + begin, dlogits.data(),
                                   stored ? logits.f32() : nullptr, rows, V, C, 1.0f / static_cast<float>(R), dtype},
                                  stream);
      if (!training) return;
      kernels::matmul(backend,
                      {dlogits.data(), w.data(), dh.slice(0, begin, begin + rows).data(), nullptr, rows, C, V, false,
                       false, false, dtype, dh.dtype()},
                      stream);
    });
    if (!head_learns) continue;
    // The head's gradient is as large as the head: it comes when what is read no more has gone.
    if (begin + rows == R) w = logits = Tensor();
    if (!dweight.defined()) dweight = empty_gradient(weight);
    on(device, "linear_cross_entropy", [&](auto backend, Stream stream) {
      kernels::matmul(
          backend,
          {dlogits.data(), part.data(), dweight.data(), nullptr, V, C, rows, true, false, begin > 0, dtype, DType::f32},
          stream);
    });
  }

  Tensor loss = empty({}, DType::f32, device);
  on(device, "mean", [&](auto backend, Stream stream) {
    kernels::sum(backend, {row_loss.f32(), loss.f32(), R}, stream);
    kernels::scale(backend, {loss.data(), loss.data(), 1, 1.0f / static_cast<float>(R), nullptr, DType::f32}, stream);
  });
  return record("linear_cross_entropy", loss, {h, weight},
                [dh, dweight, h_dtype = h.dtype()](const Tensor& dy, const Needs& needs) -> Gradients {
                  if (needs[0]) scale_by(dh, dy);
                  if (needs[1]) scale_by(dweight, dy);
                  return {needs[0] ? cast(dh, h_dtype) : Tensor(), dweight};
                });
}

}  // namespace nanovlm
