// How a batch lies in rows for the decoder.
//
// nanoVLM's sequence is [picture][left padding][text], T positions, padding included. Padded rows reach neither the
// loss nor any other row, so by default they are left out: rows are packed, each with its position, one segment a
// sample. A dense layout keeps them, as the reference computes them.
#pragma once
#include <vector>

#include "engine/batch.h"
#include "engine/ops.h"

namespace nanovlm {

enum class Padding { packed, dense };

struct Layout {
  int64_t B = 0;
  int64_t T = 0;                      // positions of a sequence: picture tokens + text length, padding included
  std::vector<int32_t> picture_rows;  // [B * picture tokens] row of each picture token
  std::vector<int32_t> text_rows;     // [text rows] row of each text token that is kept
  std::vector<int32_t> ids;           // [text rows] its token
  std::vector<int32_t> label_rows;    // rows whose label counts
  std::vector<int32_t> targets;       // their labels
  std::vector<int32_t> positions;     // [R]
  std::vector<int32_t> bounds;        // [B + 1]
  Segments segments;                  // the same on the device

  int64_t rows() const { return static_cast<int64_t>(positions.size()); }
};

// Errors: ids out of the vocabulary (before anything is computed), shapes that do not agree.
Layout layout_of(const Batch& batch, int64_t picture_tokens, int64_t vocab_size, Padding padding, const Device& device);

}  // namespace nanovlm
