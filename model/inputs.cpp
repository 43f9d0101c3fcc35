#include "model/inputs.h"

namespace nanovlm {

std::vector<int64_t> Inputs::form() const {
  std::vector<int64_t> form = {B, pictures.longest, texts.longest};
  tensors([&](const Tensor& x) {
    form.push_back(x.defined() ? x.rank() : -1);
    if (x.defined()) form.insert(form.end(), x.shape().begin(), x.shape().end());
  });
  return form;
}

void Inputs::take(const Inputs& from) const {
  check(form() == from.form(), "inputs: another batch of another form");
  std::vector<Tensor> theirs;
  from.tensors([&](const Tensor& x) { theirs.push_back(x); });
  size_t i = 0;
  tensors([&](const Tensor& x) {
    const Tensor& other = theirs[i++];
    if (x.defined()) x.device().copy(x.data(), other.data(), x.bytes());
  });
}

}  // namespace nanovlm
