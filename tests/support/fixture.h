// What PyTorch computes for single operations: tests/fixtures/ops/<operation>.safetensors, whose tensors are named
// case<k>.in.*, case<k>.const.*, case<k>.out, case<k>.upstream (the gradient that flows into the output) and
// case<k>.grad.*.
#pragma once
#include <string>

#include "engine/safetensors.h"
#include "tests/support/buffer.h"

namespace nanovlm::testing {

class OpFixture {
 public:
  explicit OpFixture(const std::string& operation)
      : file_(SafetensorsFile::open(NANOVLM_FIXTURES "/ops/" + operation + ".safetensors")) {}

  // Empty where case k has no such tensor, as operands that are null are.
  Values operator()(int k, const std::string& name) const {
    if (!file_.contains(full(k, name))) return {};
    if (file_.entry(full(k, name)).dtype == "I64") {
      const std::vector<int64_t> values = file_.read_i64(full(k, name));
      return Values(values.begin(), values.end());
    }
    const std::vector<float> values = file_.read_f32(full(k, name));
    return Values(values.begin(), values.end());
  }

  Shape shape(int k, const std::string& name) const { return file_.entry(full(k, name)).shape; }

 private:
  static std::string full(int k, const std::string& name) { return "case" + std::to_string(k) + "." + name; }

  SafetensorsFile file_;
};

}  // namespace nanovlm::testing
