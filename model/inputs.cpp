#include "model/inputs.h"

#include <array>

namespace nanovlm {
namespace {

// Every tensor, undefined ones included.
template <class In>
auto tensors(In& in) {
  return std::array{&in.images,         &in.vision,          &in.pictures.bounds, &in.texts.bounds,
                    &in.texts.key_mask, &in.texts.positions, &in.rope.cos,        &in.rope.sin,
                    &in.ids.ids,        &in.ids.target,      &in.ids.starts,      &in.ids.order,
                    &in.picture_rows,   &in.text_rows,       &in.label_rows,      &in.targets};
}

void copy(const Tensor& from, const Tensor& to) { to.device().copy(to.data(), from.data(), to.bytes()); }

}  // namespace

std::vector<int64_t> Inputs::form() const {
  std::vector<int64_t> form = {B, pictures.longest, texts.longest, learns};
  for (const Tensor* x : tensors(*this)) {
    form.push_back(x->defined() ? x->rank() : -1);
    if (x->defined()) form.insert(form.end(), x->shape().begin(), x->shape().end());
  }
  return form;
}

void Inputs::take(const Inputs& from) const {
  check(form() == from.form(), "inputs: another batch of another form");
  const auto mine = tensors(*this), theirs = tensors(from);
  for (size_t i = 0; i < mine.size(); ++i)
    if (mine[i]->defined()) copy(*theirs[i], *mine[i]);
}

Inputs Inputs::clone() const {
  Inputs result = *this;
  for (Tensor* x : tensors(result)) {
    if (!x->defined()) continue;
    const Tensor own = empty_like(*x);
    copy(*x, own);
    *x = own;
  }
  return result;
}

}  // namespace nanovlm
