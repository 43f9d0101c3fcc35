#include "model/layout.h"

#include <algorithm>

namespace nanovlm {
namespace {

// Ids, mask and labels of a batch on the host, checked.
struct Text {
  std::vector<int32_t> ids, labels;
  std::vector<uint8_t> mask;  // all 1 where the batch has none
};

void check_in_vocabulary(const char* what, int32_t id, size_t i, int64_t T, int64_t vocab_size) {
  check(id >= 0 && id < vocab_size, "batch: ", what, "[", i / static_cast<size_t>(T), ", ", i % static_cast<size_t>(T),
        "] is ", id, ", but the vocabulary has ", vocab_size, " tokens");
}

Text text_of(const Batch& batch, int64_t vocab_size) {
  const Shape shape = batch.input_ids.shape();
  check(shape.size() == 2 && shape[1] > 0, "batch: input_ids is ", shape, ", but must be [B, T]");
  check(batch.images.rank() == 4 && batch.images.size(0) == shape[0], "batch: images is ", batch.images.shape(),
        ", but input_ids is ", shape);
  Text text;
  text.ids = to_host_i32(batch.input_ids);
  text.mask.assign(text.ids.size(), 1);
  if (batch.attention_mask.defined()) {
    check(batch.attention_mask.shape() == shape, "batch: attention_mask is ", batch.attention_mask.shape(),
          ", but input_ids is ", shape);
    copy_to_host(batch.attention_mask, text.mask.data(), static_cast<int64_t>(text.mask.size()));
  }
  if (batch.labels.defined()) {
    check(batch.labels.shape() == shape, "batch: labels is ", batch.labels.shape(), ", but input_ids is ", shape);
    text.labels = to_host_i32(batch.labels);
  }
  for (size_t i = 0; i < text.ids.size(); ++i) {
    check_in_vocabulary("input_ids", text.ids[i], i, shape[1], vocab_size);
    if (!text.labels.empty() && text.labels[i] != kIgnoredLabel)
      check_in_vocabulary("labels", text.labels[i], i, shape[1], vocab_size);
  }
  return text;
}

}  // namespace

Layout layout_of(const Batch& batch, int64_t picture_tokens, int64_t vocab_size, Padding padding,
                 const Device& device) {
  const Text text = text_of(batch, vocab_size);
  const int64_t text_length = batch.input_ids.size(1);
  Layout layout;
  layout.B = batch.input_ids.size(0);
  layout.T = picture_tokens + text_length;
  std::vector<uint8_t> key_mask;
  int64_t longest = 0;
  layout.bounds.push_back(0);
  const auto push_row = [&](int64_t position, uint8_t visible) {
    layout.positions.push_back(static_cast<int32_t>(position));
    key_mask.push_back(visible);
    return static_cast<int32_t>(layout.positions.size()) - 1;
  };

  for (int64_t b = 0; b < layout.B; ++b) {
    for (int64_t t = 0; t < picture_tokens; ++t) layout.picture_rows.push_back(push_row(t, 1));
    for (int64_t t = 0; t < text_length; ++t) {
      const size_t i = static_cast<size_t>(b * text_length + t);
      const int32_t label = text.labels.empty() ? kIgnoredLabel : text.labels[i];
      // A padded place that carries a label is computed all the same: the loss asks for it.
      if (padding == Padding::packed && !text.mask[i] && label == kIgnoredLabel) continue;
      const int32_t row = push_row(picture_tokens + t, text.mask[i]);
      layout.text_rows.push_back(row);
      layout.ids.push_back(text.ids[i]);
      if (label == kIgnoredLabel) continue;
      layout.label_rows.push_back(row);
      layout.targets.push_back(label);
    }
    layout.bounds.push_back(static_cast<int32_t>(layout.positions.size()));
    longest = std::max<int64_t>(longest, layout.bounds.back() - *std::prev(layout.bounds.end(), 2));
  }

  const bool masked = std::find(key_mask.begin(), key_mask.end(), 0) != key_mask.end();
  layout.segments = {from_host(layout.bounds, {layout.B + 1}, device), longest,
                     masked ? from_host(key_mask, {layout.rows()}, device) : Tensor(),
                     from_host(layout.positions, {layout.rows()}, device)};
  return layout;
}

}  // namespace nanovlm
