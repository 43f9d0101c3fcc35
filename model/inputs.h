// A batch on the device: all that forward and backward read of it. Making one is where a training step uploads;
// afterwards it is launches alone.
#pragma once
#include <cstdint>
#include <vector>

#include "engine/ops.h"

namespace nanovlm {

struct Inputs {
  int64_t B = 0;
  Tensor images;      // [B, 3, S, S] u8 or f32, or
  Tensor vision;      // [B * P, C], what the vision encoder made of them; one of the two is undefined
  Segments pictures;  // of the vision encoder's rows
  Segments texts;     // of the decoder's rows
  RopeTable rope;
  TokenIds ids;
  Tensor picture_rows, text_rows;  // where the decoder's rows come from
  Tensor label_rows, targets;      // undefined: no label counts
  bool learns = true;              // else the loss, whatever its rows give, and every gradient are 0

  // What the launches of a step depend on: all shapes, and whether it learns. Two inputs of one form differ in their
  // numbers alone.
  std::vector<int64_t> form() const;
  // Takes over the numbers of inputs of the same form, in place.
  void take(const Inputs& from) const;
  // The same numbers in memory of its own.
  Inputs clone() const;
};

}  // namespace nanovlm
