#include <algorithm>
#include <array>
#include <filesystem>

#include "data/parquet.h"
#include "data/parquet/pages.h"
#include "engine/error.h"

namespace nanovlm {
namespace {

constexpr int kAbsent = -1;

// Leaf columns by their numbers in the file.
struct Columns {
  bool mmstar = false;  // question and answer, not turns
  int picture_bytes = kAbsent, picture_path = kAbsent;
  int user = kAbsent, assistant = kAbsent, source = kAbsent;
};

// Writers that saw no value of a column can't know its type: pyarrow then writes integers that are all null.
bool holds_nulls_alone(const parquet::ColumnDescriptor& column) {
  return column.logical_type() && column.logical_type()->is_null();
}

// Leaves are known by the first and the last name of their paths: writers name what is between differently.
class ColumnFinder {
 public:
  explicit ColumnFinder(const parquet::SchemaDescriptor& schema) : schema_(schema) {}

  int optional(const std::string& top, const std::string& leaf, int lists) {
    for (int i = 0; i < schema_.num_columns(); ++i) {
      const parquet::ColumnDescriptor& column = *schema_.Column(i);
      const std::vector<std::string> names = column.path()->ToDotVector();
      if (names.front() != top || names.back() != leaf) continue;
      if (holds_nulls_alone(column)) return kAbsent;
      if (column.physical_type() == parquet::Type::BYTE_ARRAY && column.max_repetition_level() == lists) return i;
      problems_ += text("; ", column.path()->ToDotString(), ": expected bytes or text", lists ? " in a list" : "",
                        ", found ", parquet::TypeToString(column.physical_type()),
                        column.max_repetition_level() ? text(" in ", column.max_repetition_level(), " lists") : "");
      return i;
    }
    return kAbsent;
  }

  int required(const std::string& top, const std::string& leaf, int lists) {
    const int found = optional(top, leaf, lists);
    if (found == kAbsent) missing_ += (missing_.empty() ? "" : ", ") + (top == leaf ? top : top + "." + leaf);
    return found;
  }

  void require_one(int first, int second, const std::string& names) {
    if (first == kAbsent && second == kAbsent) missing_ += (missing_.empty() ? "" : ", ") + names;
  }

  void finish(const std::string& path) const {
    std::string found;
    for (int i = 0; i < schema_.num_columns(); ++i)
      found += (i ? ", " : "") + schema_.Column(i)->path()->ToDotString() +
               (holds_nulls_alone(*schema_.Column(i)) ? " (nulls alone)" : "");
    check(missing_.empty(), path, ": expected the_cauldron's columns or MMStar's, found no ", missing_,
          " among: ", found.empty() ? "none" : found, problems_);
    check(problems_.empty(), path, ":", problems_.empty() ? "" : problems_.substr(1));
  }

 private:
  const parquet::SchemaDescriptor& schema_;
  std::string missing_, problems_;
};

Columns find_columns(const std::string& path, const parquet::SchemaDescriptor& schema) {
  ColumnFinder find(schema);
  Columns columns;
  columns.mmstar = schema.group_node()->FieldIndex("question") >= 0;
  const std::string pictures = columns.mmstar ? "image" : "images";
  const int lists = columns.mmstar ? 0 : 1;
  columns.picture_bytes = find.optional(pictures, "bytes", lists);
  columns.picture_path = find.optional(pictures, "path", lists);
  find.require_one(columns.picture_bytes, columns.picture_path, pictures + ".bytes");
  columns.user = columns.mmstar ? find.required("question", "question", 0) : find.required("texts", "user", 1);
  columns.assistant = columns.mmstar ? find.required("answer", "answer", 0) : find.required("texts", "assistant", 1);
  if (!columns.mmstar) columns.source = find.optional("texts", "source", 1);
  find.finish(path);
  return columns;
}

class ParquetRecords : public RecordSource {
 public:
  ParquetRecords(const std::string& path, std::shared_ptr<PageCache> cache)
      : pages_(path, std::move(cache)),
        folder_(std::filesystem::canonical(std::filesystem::absolute(path).parent_path()).string()),
        columns_(find_columns(path, *pages_.metadata().schema())),
        begins_{0} {
    for (int g = 0; g < pages_.metadata().num_row_groups(); ++g)
      begins_.push_back(begins_.back() + pages_.metadata().RowGroup(g)->num_rows());
  }

  int64_t size() const override { return begins_.back(); }
  std::string place(int64_t row) const override { return text(pages_.path(), ": row ", row); }
  int64_t blocks() const override { return static_cast<int64_t>(begins_.size()) - 1; }
  int64_t block_of(int64_t row) const override {  // its row group
    return std::upper_bound(begins_.begin(), begins_.end(), row) - begins_.begin() - 1;
  }

  Record read(int64_t row) const override {
    const int64_t group = block_of(row);
    const int64_t in_group = row - begins_[static_cast<size_t>(group)];
    const auto cell = [&](int column) {
      return column == kAbsent ? ParquetCell{} : pages_.read(static_cast<int>(group), column, in_group);
    };
    Record record;
    try {
      add_turns(cell(columns_.user), cell(columns_.assistant), cell(columns_.source), record);
      if (record.texts.empty()) throw BadRecord(Fault::no_text, place(row) + ": expected a turn, found none");
      add_pictures(cell(columns_.picture_bytes), cell(columns_.picture_path), record);
    } catch (const BadRecord&) {
      throw;
    } catch (const Error& error) {
      throw BadRecord(Fault::broken_record, text(place(row), ": ", error.what()));
    }
    return record;
  }

 private:
  static std::string string_of(const ParquetSlot& slot, const char* name) {
    check(slot.present, name, ": expected text, found null");
    return std::string(slot.value);
  }

  static void check_lengths(size_t expected, size_t found, const char* names) {
    check(expected == found, names, ": expected lists of one length, found ", expected, " and ", found);
  }

  void add_turns(const ParquetCell& user, const ParquetCell& assistant, const ParquetCell& source,
                 Record& record) const {
    check_lengths(user.slots.size(), assistant.slots.size(), "user and assistant");
    if (columns_.source != kAbsent) check_lengths(user.slots.size(), source.slots.size(), "user and source");
    for (size_t i = 0; i < user.slots.size() && user.slots[i].in_list; ++i) {
      const bool has_source = columns_.source != kAbsent && source.slots[i].present;
      record.texts.push_back({string_of(user.slots[i], columns_.mmstar ? "question" : "texts.user"),
                              string_of(assistant.slots[i], columns_.mmstar ? "answer" : "texts.assistant"),
                              has_source ? std::string(source.slots[i].value) : ""});
    }
  }

  void add_pictures(const ParquetCell& bytes, const ParquetCell& paths, Record& record) const {
    if (columns_.picture_bytes != kAbsent && columns_.picture_path != kAbsent)
      check_lengths(bytes.slots.size(), paths.slots.size(), "bytes and path");
    for (size_t i = 0; i < std::max(bytes.slots.size(), paths.slots.size()); ++i) {
      Picture picture;
      if (i < bytes.slots.size() && bytes.slots[i].present)
        picture.bytes.assign(bytes.slots[i].value.begin(), bytes.slots[i].value.end());
      if (i < paths.slots.size() && paths.slots[i].present) picture.path = paths.slots[i].value;
      if (picture.bytes.empty() && picture.path.empty()) {  // null, as in JSON
        record.null_first |= record.images.empty();
        continue;
      }
      if (picture.bytes.empty()) picture.folder = folder_;
      record.images.push_back(std::move(picture));
    }
  }

  const ParquetPages pages_;
  const std::string folder_;  // canonical
  const Columns columns_;
  std::vector<int64_t> begins_;  // of each row group, and the end of the last
};

}  // namespace

bool parquet_can_be_read() { return true; }

std::unique_ptr<RecordSource> open_parquet(const std::string& path, std::shared_ptr<PageCache> cache) {
  return std::make_unique<ParquetRecords>(path, std::move(cache));
}

}  // namespace nanovlm
