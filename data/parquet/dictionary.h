// A dictionary page whose values stay where they are.
#pragma once
#include <memory>
#include <string_view>
#include <vector>

#include <parquet/column_page.h>
#include <parquet/types.h>

namespace nanovlm {

constexpr int32_t kMaxPageValues = 1 << 24;

// Arrow's decoder copies all of a dictionary's values, megabytes for the one that is asked for. It gets their numbers
// in their place, and what it finds in a data page is looked up here.
class Dictionary {
 public:
  // Error: its bytes are not the plain byte arrays it promises.
  explicit Dictionary(std::shared_ptr<parquet::DictionaryPage> page);

  // A dictionary of as many values, each its own number.
  std::shared_ptr<parquet::DictionaryPage> numbers() const;

  std::string_view value(const parquet::ByteArray& number) const;

  int64_t table_bytes() const { return static_cast<int64_t>(values_.size() * sizeof(values_[0])); }  // beside the page

 private:
  std::shared_ptr<parquet::DictionaryPage> page_;
  std::vector<std::string_view> values_;  // in the page's memory
};

}  // namespace nanovlm
