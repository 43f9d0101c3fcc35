// What a frozen vision encoder makes of pictures. Each goes through it once, however many questions and epochs ask
// about it; the first ones that fit are kept, as in data/picture_cache.h.
#pragma once
#include <cstddef>
#include <unordered_map>
#include <vector>

#include "model/vision_transformer.h"

namespace nanovlm {

class VisionCache {
 public:
  // `encoder` outlives this, and its parameters stay as they are. `max_bytes` of host memory.
  VisionCache(const ViT& encoder, DType dtype, int64_t max_bytes)
      : encoder_(encoder), dtype_(dtype), max_bytes_(max_bytes) {}

  // encoder(images), [B * P, C], without a gradient. images: [B, 3, S, S] on the host.
  Tensor operator()(const Tensor& images, const Device& device);

  struct Counts {
    int64_t asked = 0, found = 0;  // pictures asked for, and those of them that did not have to be computed
    int64_t kept_bytes = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  using Bytes = std::vector<std::byte>;
  // Pictures are told apart by 64 bits of their pixels: among a million, two are taken for one with a chance of 3e-8.
  using Key = uint64_t;
  using Outputs = std::unordered_map<Key, Bytes>;

  Outputs encode(const Tensor& images, const std::vector<int64_t>& which, const std::vector<Key>& keys,
                 const Device& device) const;

  const ViT& encoder_;
  const DType dtype_;
  const int64_t max_bytes_;
  Counts counts_;
  Outputs kept_;  // [P, C] each
};

}  // namespace nanovlm
