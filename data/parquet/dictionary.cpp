#include "data/parquet/dictionary.h"

#include <array>
#include <cstring>

#include <arrow/buffer.h>

#include "engine/error.h"

namespace nanovlm {

// Parquet's PLAIN byte arrays: four bytes of length, little-endian, then the value.
Dictionary::Dictionary(std::shared_ptr<parquet::DictionaryPage> page) : page_(std::move(page)) {
  const bool plain =
      page_->encoding() == parquet::Encoding::PLAIN || page_->encoding() == parquet::Encoding::PLAIN_DICTIONARY;
  check(plain, "expected a plain dictionary, found ", parquet::EncodingToString(page_->encoding()));
  const int32_t n = page_->num_values();
  check(n >= 0 && n <= kMaxPageValues, "expected a dictionary of at most ", kMaxPageValues, " values, found ", n);
  std::string_view rest(reinterpret_cast<const char*>(page_->data()), static_cast<size_t>(page_->size()));
  for (int32_t i = 0; i < n; ++i) {
    uint32_t bytes = 0;
    check(rest.size() >= sizeof(bytes), "expected ", n, " values in the dictionary, found ", i);
    std::memcpy(&bytes, rest.data(), sizeof(bytes));
    rest.remove_prefix(sizeof(bytes));
    check(rest.size() >= bytes, "expected ", bytes, " bytes as value ", i, " of the dictionary, found ", rest.size());
    values_.push_back(rest.substr(0, bytes));
    rest.remove_prefix(bytes);
  }
}

std::shared_ptr<parquet::DictionaryPage> Dictionary::numbers() const {
  std::vector<std::array<uint32_t, 2>> numbers(values_.size());  // length and value, PLAIN again
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = {sizeof(uint32_t), static_cast<uint32_t>(i)};
  return std::make_shared<parquet::DictionaryPage>(arrow::Buffer::FromVector(std::move(numbers)), page_->num_values(),
                                                   parquet::Encoding::PLAIN);
}

std::string_view Dictionary::value(const parquet::ByteArray& number) const {
  uint32_t i = 0;
  std::memcpy(&i, number.ptr, sizeof(i));
  return values_[i];
}

}  // namespace nanovlm
