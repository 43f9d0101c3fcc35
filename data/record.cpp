#include "data/record.h"

#include <algorithm>

#include "engine/file.h"

namespace nanovlm {

const char* name_of(Fault fault) {
  constexpr const char* names[kFaults] = {"broken record",  "no text",   "no picture", "missing picture",
                                          "broken picture", "over-long", "no target"};
  return names[static_cast<int>(fault)];
}

std::vector<uint8_t> picture_bytes(const Picture& picture, const std::string& place, const ImageLimits& limits) {
  if (!picture.bytes.empty()) return picture.bytes;
  try {
    return File::open_beneath(picture.folder, picture.path).read_all(limits.max_bytes);
  } catch (const Error& error) {
    throw BadRecord(Fault::missing_picture, text(place, ": picture ", error.what()));
  }
}

Concatenation::Concatenation(std::vector<std::unique_ptr<RecordSource>> parts)
    : parts_(std::move(parts)), begins_{0}, first_blocks_{0} {
  for (const auto& part : parts_) {
    begins_.push_back(begins_.back() + part->size());
    first_blocks_.push_back(first_blocks_.back() + part->blocks());
  }
}

size_t Concatenation::part_of(int64_t row) const {
  return static_cast<size_t>(std::upper_bound(begins_.begin(), begins_.end(), row) - begins_.begin()) - 1;
}

Record Concatenation::read(int64_t row) const {
  const size_t part = part_of(row);
  return parts_[part]->read(row - begins_[part]);
}

std::string Concatenation::place(int64_t row) const {
  const size_t part = part_of(row);
  return parts_[part]->place(row - begins_[part]);
}

int64_t Concatenation::block_of(int64_t row) const {
  const size_t part = part_of(row);
  return first_blocks_[part] + parts_[part]->block_of(row - begins_[part]);
}

}  // namespace nanovlm
