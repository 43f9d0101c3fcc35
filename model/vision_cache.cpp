#include "model/vision_cache.h"

#include <cstring>
#include <unordered_set>

#include "engine/autograd.h"
#include "engine/random.h"

namespace nanovlm {
namespace {

const char* bytes_of(const Tensor& images, int64_t b) {
  return static_cast<const char*>(images.data()) + b * (images.bytes() / images.size(0));
}

}  // namespace

Tensor VisionCache::operator()(const Tensor& images, const Device& device) {
  const int64_t B = images.size(0);
  const auto bytes = static_cast<size_t>(images.bytes() / B);
  std::vector<Key> keys;
  std::vector<int64_t> unseen;
  std::unordered_set<Key> met;
  for (int64_t b = 0; b < B; ++b) {
    keys.push_back(hash_of({bytes_of(images, b), bytes}));
    if (!kept_.contains(keys.back()) && met.insert(keys.back()).second) unseen.push_back(b);
  }
  counts_.asked += B;
  counts_.found += B - static_cast<int64_t>(unseen.size());
  Outputs made = unseen.empty() ? Outputs() : encode(images, unseen, keys, device);

  Bytes all;
  for (const Key key : keys) {
    const auto known = kept_.find(key);
    const Bytes& one = known != kept_.end() ? known->second : made.at(key);
    all.insert(all.end(), one.begin(), one.end());
  }
  const int64_t C = encoder_.layer_norm.weight.numel();
  const Tensor y = empty({static_cast<int64_t>(all.size()) / (C * size_of(dtype_)), C}, dtype_, device);
  copy_from_host(y, all.data(), y.bytes());

  for (auto& [key, output] : made) {
    const auto size = static_cast<int64_t>(output.size());
    if (counts_.kept_bytes + size > max_bytes_) break;
    counts_.kept_bytes += size;
    kept_.emplace(key, std::move(output));
  }
  return y;
}

// The outputs for the pictures `which`, by key.
VisionCache::Outputs VisionCache::encode(const Tensor& images, const std::vector<int64_t>& which,
                                         const std::vector<Key>& keys, const Device& device) const {
  const NoGrad no_grad(device);
  const auto N = static_cast<int64_t>(which.size());
  const int64_t bytes = images.bytes() / images.size(0);
  Tensor chosen = empty({N, images.size(1), images.size(2), images.size(3)}, images.dtype(), images.device());
  for (int64_t i = 0; i < N; ++i)
    std::memcpy(static_cast<char*>(chosen.data()) + i * bytes, bytes_of(images, which[static_cast<size_t>(i)]),
                static_cast<size_t>(bytes));
  Forward run;
  run.dtype = dtype_;
  const Tensor y = encoder_(to_device(chosen, device), run);  // [N * P, C]
  check(y.dtype() == dtype_, "vision cache: the encoder's output is ", y.dtype(), ", expected ", dtype_);

  Bytes all(static_cast<size_t>(y.bytes()));
  copy_to_host(y, all.data(), y.bytes());
  const auto size = static_cast<int64_t>(all.size()) / N;
  Outputs outputs;
  for (int64_t i = 0; i < N; ++i)
    outputs.emplace(keys[static_cast<size_t>(which[static_cast<size_t>(i)])],
                    Bytes(all.begin() + i * size, all.begin() + (i + 1) * size));
  return outputs;
}

}  // namespace nanovlm
