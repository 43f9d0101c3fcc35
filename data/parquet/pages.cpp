#include "data/parquet/pages.h"

#include <algorithm>
#include <limits>
#include <optional>

#include <arrow/buffer.h>
#include <arrow/io/memory.h>
#include <arrow/memory_pool.h>
#include <parquet/column_page.h>
#include <parquet/column_reader.h>
#include <parquet/exception.h>
#include <parquet/page_index.h>

#include "data/parquet.h"
#include "data/parquet/dictionary.h"
#include "data/parquet/file_view.h"
#include "data/parquet/memory.h"
#include "engine/error.h"

namespace nanovlm {
namespace {
constexpr int64_t kMaxPageBytes = int64_t{512} << 20;  // decoded
constexpr int64_t kKeptBytes = int64_t{64} << 20;      // of free memory: what two threads need for pages of 10 MB
constexpr int kFewReads = 8;                           // of a large page, before it is left to the system to cache it
constexpr size_t kRemembered = 16;                     // askings for large pages that were not kept

// What Arrow throws, as our error with its place in front.
template <class F>
auto translated(const std::string& place, const F& f) {
  try {
    return f();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    fail(place, ": ", error.what());
  }
}

std::unique_ptr<parquet::PageReader> open_pager(std::shared_ptr<arrow::io::InputStream> stream,
                                                const parquet::ColumnChunkMetaData& chunk,
                                                const parquet::ColumnDescriptor& column,
                                                arrow::MemoryPool* pool = arrow::default_memory_pool()) {
  return parquet::PageReader::Open(std::move(stream), std::numeric_limits<int64_t>::max(), chunk.compression(),
                                   parquet::ReaderProperties(pool), column);
}

// A data page, behind its dictionary where it refers to one.
class OnePage : public parquet::PageReader {
 public:
  explicit OnePage(std::unique_ptr<parquet::PageReader> data)
      : data_(std::move(data)), page_(std::dynamic_pointer_cast<parquet::DataPage>(data_->NextPage())) {}

  int32_t values() const { return page_ ? page_->num_values() : -1; }
  bool needs_dictionary() const {
    return page_ && (page_->encoding() == parquet::Encoding::RLE_DICTIONARY ||
                     page_->encoding() == parquet::Encoding::PLAIN_DICTIONARY);
  }
  void set_dictionary(std::shared_ptr<parquet::Page> dictionary) { dictionary_ = std::move(dictionary); }

  std::shared_ptr<parquet::Page> NextPage() override {
    if (dictionary_) return std::exchange(dictionary_, nullptr);
    return std::exchange(page_, nullptr);
  }
  void set_max_page_header_size(uint32_t size) override { data_->set_max_page_header_size(size); }

 private:
  std::unique_ptr<parquet::PageReader> data_;  // has the page's memory
  std::shared_ptr<parquet::DataPage> page_;
  std::shared_ptr<parquet::Page> dictionary_;
};

// The definition level from which on a list has a value here, if only null; 0 for a column that is no list.
int16_t definition_in_list(const parquet::ColumnDescriptor& leaf) {
  int level = 0;
  bool inside = false;
  for (const parquet::schema::Node* node = leaf.schema_node().get(); node; node = node->parent()) {
    inside |= node->is_repeated();
    level += inside && !node->is_required();
  }
  return static_cast<int16_t>(level);
}
}  // namespace

// A page, decoded. The dictionary, else the reader, owns what the slots point at.
struct ParquetPage {
  explicit ParquetPage(std::shared_ptr<arrow::MemoryPool> memory) : memory(std::move(memory)) {}

  int64_t bytes() const {
    return counted.bytes_allocated() + static_cast<int64_t>(slots.size() * sizeof(ParquetSlot)) +
           (dictionary ? dictionary->table_bytes() : 0) + 1;
  }

  const std::shared_ptr<arrow::MemoryPool> memory;
  arrow::ProxyMemoryPool counted{memory.get()};
  arrow::CappedMemoryPool pool{&counted, kMaxPageBytes};
  std::shared_ptr<parquet::ColumnReader> reader;
  std::optional<Dictionary> dictionary;
  std::vector<ParquetSlot> slots;
  std::vector<int64_t> begins;  // slots at which a row begins
};

PageCache::PageCache(int64_t max_bytes, int64_t large_bytes)
    : max_bytes_(max_bytes), large_bytes_(large_bytes), memory_(std::make_shared<PageMemory>(kKeptBytes)) {}

std::shared_ptr<PageCache> make_page_cache(int64_t max_bytes) { return std::make_shared<PageCache>(max_bytes); }

int64_t PageCache::next_file() {
  const std::lock_guard lock(mutex_);
  return files_++;
}

PageCache::Page PageCache::get(const Key& key, bool will_ask_again, const std::function<Page()>& make) {
  std::promise<Page> promise;
  {
    std::unique_lock lock(mutex_);
    const auto [found, missing] = entries_.try_emplace(key);
    if (!missing) {
      if (found->second.bytes)
        uses_.splice(uses_.begin(), uses_, found->second.use);
      else
        found->second.asked_again = true;
      const std::shared_future<Page> page = found->second.page;
      lock.unlock();
      return page.get();
    }
    found->second.page = promise.get_future().share();
  }
  try {
    const Page page = make();
    promise.set_value(page);
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_.at(key);
    if (!is_worth_keeping(key, page->bytes(), entry.asked_again || will_ask_again)) {
      entries_.erase(key);
      return page;
    }
    entry.bytes = page->bytes();
    entry.use = uses_.insert(uses_.begin(), key);
    bytes_ += entry.bytes;
    trim();
    return page;
  } catch (...) {
    promise.set_exception(std::current_exception());
    const std::lock_guard lock(mutex_);
    entries_.erase(key);
    throw;
  }
}

bool PageCache::is_worth_keeping(const Key& key, int64_t bytes, bool asked_again) {
  if (bytes < large_bytes_ || asked_again) return true;
  if (std::count(asked_.begin(), asked_.end(), key) == 2) return true;
  asked_.push_back(key);
  if (asked_.size() > kRemembered) asked_.pop_front();
  return false;
}

void PageCache::trim() {
  while (bytes_ > max_bytes_ && uses_.size() > 1) {
    const auto last = entries_.find(uses_.back());
    bytes_ -= last->second.bytes;
    entries_.erase(last);
    uses_.pop_back();
  }
}

ParquetPages::ParquetPages(const std::string& path, std::shared_ptr<PageCache> cache)
    : file_(std::make_shared<const File>(File::open(path))), cache_(std::move(cache)), id_(cache_->next_file()) {
  // Behind a page of megabytes the system would read megabytes more, and the next row's first page would wait for them.
  file_->expect_random_reads();
  translated(path, [&] {
    reader_ = parquet::ParquetFileReader::Open(std::make_shared<FileView>(file_, 0, file_->size()));
    metadata_ = reader_->metadata();
    check_ranges();
  });
}

ParquetPages::~ParquetPages() = default;

void ParquetPages::check_ranges() const {
  int64_t rows = 0;
  for (int g = 0; g < metadata_->num_row_groups(); ++g) {
    const auto group = metadata_->RowGroup(g);
    check(group->num_rows() >= 0, path(), ": row group ", g, ": expected rows, found ", group->num_rows());
    if (group->num_rows() == 0) continue;  // never read, and writers leave nonsense as its columns' places
    rows += group->num_rows();
    for (int c = 0; c < group->num_columns(); ++c) {
      const auto chunk = group->ColumnChunk(c);
      const int64_t begin = chunk->data_page_offset(), bytes = chunk->total_compressed_size();
      const int64_t first = chunk->has_dictionary_page() ? std::min(begin, chunk->dictionary_page_offset()) : begin;
      check(first > 0 && bytes >= 0 && begin - first <= bytes && bytes <= file_->size() - first, path(), ": row group ",
            g, ", column ", chunk->path_in_schema()->ToDotString(), ": expected bytes inside the file's ",
            file_->size(), ", found ", bytes, " at ", first);
    }
  }
  check(rows == metadata_->num_rows(), path(), ": expected ", metadata_->num_rows(), " rows, found row groups of ",
        rows);
}

std::shared_ptr<const ParquetPages::Directory> ParquetPages::directory(int group, int leaf) const {
  {
    const std::lock_guard lock(mutex_);
    const auto found = directories_.find({group, leaf});
    if (found != directories_.end()) return found->second;
  }
  auto built = std::make_shared<const Directory>(build_directory(group, leaf));
  const std::lock_guard lock(mutex_);
  return directories_.try_emplace({group, leaf}, std::move(built)).first->second;
}

ParquetPages::Directory ParquetPages::build_directory(int group, int leaf) const {
  const auto row_group = metadata_->RowGroup(group);
  const auto chunk = row_group->ColumnChunk(leaf);
  Directory directory;
  int64_t begin = chunk->data_page_offset();
  if (chunk->has_dictionary_page() && chunk->dictionary_page_offset() < begin) {
    directory.dictionary_offset = chunk->dictionary_page_offset();
    directory.dictionary_bytes = begin - directory.dictionary_offset;
  }
  const int64_t end = begin - directory.dictionary_bytes + chunk->total_compressed_size();
  if (!read_offset_index(group, leaf, directory)) walk_pages(group, leaf, end, directory);
  check(!directory.pages.empty() && directory.pages.front().first_row == 0 &&
            directory.pages.back().first_row <= row_group->num_rows(),
        path(), ": row group ", group, ", column ", chunk->path_in_schema()->ToDotString(), ": expected pages of ",
        row_group->num_rows(), " rows, found ", directory.pages.size(), " pages");
  return directory;
}

// Writers that care put the pages' places and first rows behind the row groups.
bool ParquetPages::read_offset_index(int group, int leaf, Directory& directory) const {
  std::shared_ptr<parquet::OffsetIndex> index;
  {
    const std::lock_guard lock(mutex_);
    const auto chunk = metadata_->RowGroup(group)->ColumnChunk(leaf);
    if (!chunk->GetOffsetIndexLocation()) return false;
    const auto reader = reader_->GetPageIndexReader();
    const auto of_group = reader ? reader->RowGroup(group) : nullptr;
    index = of_group ? of_group->GetOffsetIndex(leaf) : nullptr;
  }
  if (!index) return false;
  for (const parquet::PageLocation& page : index->page_locations()) {
    check(page.offset > 0 && page.compressed_page_size > 0 &&
              page.compressed_page_size <= file_->size() - page.offset &&
              (directory.pages.empty() || page.first_row_index >= directory.pages.back().first_row),
          path(), ": row group ", group, ": its offset index names ", page.compressed_page_size, " bytes at ",
          page.offset, " as a page");
    directory.pages.push_back({page.offset, page.compressed_page_size, page.first_row_index});
  }
  return true;
}

// From header to header. How many rows a page has is known from its header where each row has one value, or the page is
// of the second format; otherwise they are counted.
void ParquetPages::walk_pages(int group, int leaf, int64_t end, Directory& directory) const {
  const auto row_group = metadata_->RowGroup(group);
  const auto chunk = row_group->ColumnChunk(leaf);
  const auto stream = std::make_shared<FileView>(file_, chunk->data_page_offset(), end);
  const auto pager = open_pager(stream, *chunk, *metadata_->schema()->Column(leaf));
  const bool one_value_a_row = chunk->num_values() == row_group->num_rows();
  int64_t row = 0;
  pager->set_data_page_filter([&](const parquet::DataPageStats& page) {
    if (!directory.pages.empty()) directory.pages.back().bytes = stream->peeked_at() - directory.pages.back().offset;
    directory.pages.push_back({stream->peeked_at(), end - stream->peeked_at(), row});
    directory.rows_end_with_pages &= one_value_a_row || page.num_rows.has_value();
    row += one_value_a_row ? page.num_values : page.num_rows.value_or(0);
    stream->skip_next_read();
    return true;
  });
  while (pager->NextPage()) continue;
  if (directory.rows_end_with_pages) return;
  row = 0;
  for (size_t i = 0; i < directory.pages.size(); ++i) {
    directory.pages[i].first_row = row;
    row += static_cast<int64_t>(page(group, leaf, directory, i, true)->begins.size());
  }
}

PageCache::Page ParquetPages::page(int group, int leaf, const Directory& directory, size_t index,
                                   bool will_ask_again) const {
  const PageCache::Key key = {id_, int64_t{group} * metadata_->num_columns() + leaf, static_cast<int64_t>(index)};
  return cache_->get(key, will_ask_again, [&] { return decode(group, leaf, directory, directory.pages[index]); });
}

// A large page that is read for the first time may never be read again; one that was read a few times will be, as each
// of its rows in random order asks for it.
std::shared_ptr<arrow::Buffer> ParquetPages::read_range(int64_t offset, int64_t bytes, arrow::MemoryPool* pool) const {
  const bool seldom = bytes >= PageCache::kLargeBytes && count_read(offset) <= kFewReads;
  PARQUET_ASSIGN_OR_THROW(std::shared_ptr<arrow::Buffer> buffer,
                          arrow::AllocateBuffer(bytes + (seldom ? 2 * File::kBlock : 0), pool));
  auto* const to = reinterpret_cast<char*>(buffer->mutable_data());
  if (seldom) return arrow::SliceBuffer(buffer, file_->read_past_cache(to, bytes, offset), bytes);
  file_->read_soon(to, bytes, offset);
  return buffer;
}

int ParquetPages::count_read(int64_t offset) const {
  const std::lock_guard lock(mutex_);
  return ++reads_[offset];
}

PageCache::Page ParquetPages::decode(int group, int leaf, const Directory& directory, const PageRange& range) const {
  const parquet::ColumnDescriptor& column = *metadata_->schema()->Column(leaf);
  const auto chunk = metadata_->RowGroup(group)->ColumnChunk(leaf);
  const auto made = std::make_shared<ParquetPage>(cache_->memory());
  const auto pager_of = [&](int64_t offset, int64_t bytes) {
    return open_pager(std::make_shared<arrow::io::BufferReader>(read_range(offset, bytes, &made->pool)), *chunk, column,
                      &made->pool);
  };
  auto pager = std::make_unique<OnePage>(pager_of(range.offset, range.bytes));
  if (pager->needs_dictionary()) {
    check(directory.dictionary_bytes > 0, "expected a dictionary, to which the page at byte ", range.offset, " refers");
    const auto before = pager_of(directory.dictionary_offset, directory.dictionary_bytes);
    const auto found = std::dynamic_pointer_cast<parquet::DictionaryPage>(before->NextPage());
    check(found != nullptr, "expected a dictionary at byte ", directory.dictionary_offset);
    pager->set_dictionary(made->dictionary.emplace(found).numbers());
  }
  const int32_t values = pager->values();
  check(values >= 0 && values <= kMaxPageValues, "expected a page of 0 to ", kMaxPageValues, " values at byte ",
        range.offset, ", found ", values);
  if (values == 0) return made;  // Arrow's writer leaves some before it gives a dictionary up
  made->reader = parquet::ColumnReader::Make(&column, std::move(pager), &made->pool);
  auto& reader = static_cast<parquet::ByteArrayReader&>(*made->reader);

  // All in one go: the next call may move what the values of this one point at.
  const auto n = static_cast<size_t>(values);
  std::vector<int16_t> repetition(n), definition(n, column.max_definition_level());
  std::vector<parquet::ByteArray> present(n);
  int64_t present_values = 0;
  const int64_t levels =
      reader.ReadBatch(values, definition.data(), repetition.data(), present.data(), &present_values);
  check(levels == values, "expected ", values, " values in the page at byte ", range.offset, ", found ", levels);

  const int16_t in_list = definition_in_list(column);
  made->slots.reserve(n);
  const parquet::ByteArray* next = present.data();
  for (size_t i = 0; i < n; ++i) {
    if (repetition[i] == 0) made->begins.push_back(static_cast<int64_t>(i));
    ParquetSlot slot{definition[i] >= in_list, definition[i] == column.max_definition_level(), {}};
    if (slot.present) {
      slot.value = made->dictionary ? made->dictionary->value(*next)
                                    : std::string_view(reinterpret_cast<const char*>(next->ptr), next->len);
      ++next;
    }
    made->slots.push_back(slot);
  }
  check(next - present.data() == present_values, "expected ", present_values,
        " values that are not null in the page at byte ", range.offset, ", found ", next - present.data());
  return made;
}

ParquetCell ParquetPages::read(int group, int leaf, int64_t row) const {
  const std::string place =
      text(path(), ": row group ", group, ", column ", metadata_->schema()->Column(leaf)->path()->ToDotString());
  return translated(place, [&] {
    const auto of_leaf = directory(group, leaf);
    const auto& pages = of_leaf->pages;
    const auto behind = std::upper_bound(pages.begin(), pages.end(), row,
                                         [](int64_t r, const PageRange& page) { return r < page.first_row; });
    auto index = static_cast<size_t>(behind - pages.begin()) - 1;
    ParquetCell cell;
    cell.pages.push_back(page(group, leaf, *of_leaf, index));
    const ParquetPage& first = *cell.pages[0];
    const auto k = static_cast<size_t>(row - pages[index].first_row);
    check(k < first.begins.size(), "row ", row, ": expected it among the ", first.begins.size(),
          " rows of the page at byte ", pages[index].offset);
    const bool last = k + 1 == first.begins.size();
    cell.slots.assign(first.slots.begin() + first.begins[k],
                      last ? first.slots.end() : first.slots.begin() + first.begins[k + 1]);
    // The rest of it in the pages that follow.
    for (bool more = last && !of_leaf->rows_end_with_pages; more && ++index < pages.size();) {
      cell.pages.push_back(page(group, leaf, *of_leaf, index));
      const ParquetPage& next = *cell.pages.back();
      more = next.begins.empty();
      cell.slots.insert(cell.slots.end(), next.slots.begin(),
                        more ? next.slots.end() : next.slots.begin() + next.begins[0]);
    }
    return cell;
  });
}

}  // namespace nanovlm
